"""What a job leaves to download."""

import re
from collections.abc import Iterator

from api.errors import ArtifactGone
from api.ranges import Content
from api.schemas.artifacts import ArtifactList, artifact_out
from contract.quote import cut
from storage.backends import Storage
from store import artifacts
from store.access.principal import Principal
from store.errors import ArtifactNotFound
from store.jobs import jobs
from store.models import Artifact
from store.session import Sessions

_ARTIFACT_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)
_MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
}


def artifacts_of(sessions: Sessions, who: Principal, job_id: str) -> ArtifactList:
    """Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        found = artifacts.of_job(session, job_id)
    best = artifacts.best(found)
    return ArtifactList(data=[artifact_out(artifact, best is artifact) for artifact in found])


def download(sessions: Sessions, storage: Storage, who: Principal, job_id: str, name: str) -> Content:
    """An artifact: a file, or a folder as an archive. Raises JobNotFound, ArtifactNotFound; its `read` ArtifactGone,
    StorageUnavailable."""
    artifact = _get(sessions, who, job_id, name)
    if not artifacts.is_archive(artifact):
        return _file(storage, artifact, artifacts.files(artifact)[0], artifacts.key(artifact))
    archive = artifacts.archive(artifact, [(file.name, file.bytes) for file in artifacts.files(artifact)])

    def read_file(file: str, start: int, end: int) -> Iterator[bytes]:
        return storage.read(artifacts.key(artifact, file), start, end)

    def read(start: int, end: int) -> Iterator[bytes]:
        with_checksum = archive.read(start, end, artifact.crc32 or 0, read_file)
        return _there(artifact, with_checksum)

    return Content(archive.size, artifact.sha256 or "", name, "application/gzip", read)


def download_file(sessions: Sessions, storage: Storage, who: Principal, job_id: str, name: str, path: str) -> Content:
    """One file of a folder, by the name that the list has. Raises as `download`."""
    artifact = _get(sessions, who, job_id, name)
    for file in artifacts.files(artifact) if artifacts.is_archive(artifact) else []:
        if file.name == path:
            return _file(storage, artifact, file, artifacts.key(artifact, path))
    raise ArtifactNotFound(job_id, f"{name} with a file {cut(path)}")


def _get(sessions: Sessions, who: Principal, job_id: str, name: str) -> Artifact:
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if not _ARTIFACT_NAME.fullmatch(name):  # PostgreSQL does not take every text as a parameter
            raise ArtifactNotFound(job_id, cut(name))
        return artifacts.get(session, job_id, name)


def _file(storage: Storage, artifact: Artifact, file: artifacts.File, key: str) -> Content:
    def read(start: int, end: int) -> Iterator[bytes]:
        return _there(artifact, storage.read(key, start, end))

    name = file.name.rpartition("/")[2]
    media_type = _MEDIA_TYPES.get(f".{name.rpartition('.')[2]}", "application/octet-stream")
    return Content(file.bytes, file.sha256, name, media_type, read)


def _there(artifact: Artifact, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except (FileNotFoundError, EOFError) as error:
        raise ArtifactGone(artifact.job_id, artifact.name) from error
