"""Takes the files of an artifact into the storage, and digests them and what a download of them gives."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from storage.backends import FolderStorage, Storage
from store import artifacts
from store.artifacts import ArtifactFile, Digests
from store.models import Artifact


def put(storage: Storage, home: FolderStorage, artifact: Artifact) -> Digests:
    """Uploads the files of an artifact from the home folder. Where its files are known, they are in the storage
    already, and are only digested. Raises FileNotFoundError, StorageUnavailable."""
    if known := artifacts.files(artifact):
        return _digests(storage, artifact, {file.name: file.bytes for file in known})
    path = home.local_path(artifacts.key(artifact))
    if not artifacts.is_archive(artifact):
        storage.put_file(artifacts.key(artifact), path)
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            return Digests([ArtifactFile(artifact.name, opened.tell(), sha256)], opened.tell(), sha256)
    names = _names(path)
    for name in names:
        storage.put_file(artifacts.key(artifact, name), path / name)
    return _digests(home, artifact, {name: (path / name).stat().st_size for name in names})


def _names(folder: Path) -> list[str]:
    """The names of its files, sorted, without links."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if not found:  # rglob finds nothing in what is no folder, and raises nothing
        raise FileNotFoundError(folder)
    return sorted(found)


def _digests(source: Storage, artifact: Artifact, sizes: Mapping[str, int]) -> Digests:
    """Digests each file and the archive of all of them, reading every file once."""
    archive = artifacts.archive(artifact, sizes.items())
    each = {name: hashlib.sha256() for name in sizes}

    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        for chunk in source.read(artifacts.key(artifact, name), start, end):
            each[name].update(chunk)
            yield chunk

    whole = hashlib.sha256()
    for chunk in archive.read(0, archive.size, read):
        whole.update(chunk)
    files = [ArtifactFile(name, size, each[name].hexdigest()) for name, size in sizes.items()]
    return Digests(files, archive.size, whole.hexdigest())
