"""What a job leaves to download."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context, Services
from api.errors import ArtifactGone
from api.http.ids import JobId
from api.http.ranges import Content, hand_out
from contract.formatting import truncate
from storage.backends import Storage
from store import artifacts
from store.access.principal import Principal
from store.errors import ArtifactNotFound
from store.jobs import jobs
from store.models import Artifact


class FileOut(BaseModel):
    name: str
    """Name, with "/" between folders."""
    bytes: int
    sha256: str


class ArtifactOut(BaseModel):
    name: str
    kind: str
    step: int | None
    bytes: int
    """Size of the download."""
    sha256: str
    """SHA-256 of the download; also its ETag."""
    files: list[FileOut]
    """Files of the archive, or the single file itself."""
    eval_loss: float | None
    """Loss of the evaluation at its step, if there was one."""
    best: bool
    """The adapter or checkpoint with the best evaluation, which best.tar stands for."""
    created_at: datetime


class ArtifactList(BaseModel):
    data: list[ArtifactOut]


router = APIRouter(tags=["artifacts"])

_ARTIFACT_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)
_MEDIA_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
}


@router.get("/jobs/{job_id}/artifacts")
def list_artifacts(services: Context, who: Who, job_id: JobId) -> ArtifactList:
    """What can be downloaded. An archive unpacks to a folder of its name, with `files` in it."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        found = artifacts.list_published(session, job_id)
    best = artifacts.best(found)
    return ArtifactList(data=[artifact_out(artifact, best is artifact) for artifact in found])


@router.head("/jobs/{job_id}/artifacts/{name}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}", response_class=Response)
def download_artifact(request: Request, services: Context, who: Who, job_id: JobId, name: str) -> Response:
    """An artifact, or with Range one part of it. The ETag is its SHA-256."""
    return hand_out(request, artifact_content(services.storage, find_artifact(services, who, job_id, name), name))


# The request and its path have these parts.
@router.head("/jobs/{job_id}/artifacts/{name}/files/{path:path}", include_in_schema=False)
@router.get("/jobs/{job_id}/artifacts/{name}/files/{path:path}", response_class=Response)
def download_artifact_file(  # parameters: the request and its path
    request: Request, services: Context, who: Who, job_id: JobId, name: str, path: str
) -> Response:
    """One file of an archive, by its name in the list, or with Range one part of it."""
    artifact = find_artifact(services, who, job_id, name)
    for file in artifacts.files(artifact) if artifacts.is_archive(artifact) else []:
        if file.name == path:
            return hand_out(request, _file(services.storage, artifact, file, artifacts.key(artifact, path)))
    raise ArtifactNotFound(job_id, f"{name} with a file {truncate(path)}")


def find_artifact(services: Services, who: Principal, job_id: str, name: str) -> Artifact:
    """Raises JobNotFound, ArtifactNotFound."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if not _ARTIFACT_NAME.fullmatch(name):  # PostgreSQL does not take every text as a parameter
            raise ArtifactNotFound(job_id, truncate(name))
        return artifacts.get(session, job_id, name)


def artifact_content(storage: Storage, artifact: Artifact, name: str) -> Content:
    """A file, or a folder as an archive of that name. Its `read` raises ArtifactGone, StorageUnavailable."""
    if not artifacts.is_archive(artifact):
        return _file(storage, artifact, artifacts.files(artifact)[0], artifacts.key(artifact))
    archive = artifacts.archive(artifact, [(file.name, file.bytes) for file in artifacts.files(artifact)])

    def read_file(file: str, start: int, end: int) -> Iterator[bytes]:
        return storage.read(artifacts.key(artifact, file), start, end)

    def read(start: int, end: int) -> Iterator[bytes]:
        return _there(artifact, archive.read(start, end, read_file))

    return Content(archive.size, artifact.sha256 or "", name, "application/x-tar", read)


def _file(storage: Storage, artifact: Artifact, file: artifacts.ArtifactFile, key: str) -> Content:
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


def artifact_out(artifact: Artifact, best: bool) -> ArtifactOut:
    return ArtifactOut(
        name=artifact.name,
        kind=artifact.kind,
        step=artifact.step,
        bytes=artifact.bytes,
        sha256=artifact.sha256 or "",
        files=[FileOut.model_validate(asdict(file)) for file in artifacts.files(artifact)],
        eval_loss=artifact.eval_loss,
        best=best,
        created_at=artifact.created_at,
    )
