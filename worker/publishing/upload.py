"""Takes the files of an artifact into the storage, and digests them and what a download of them gives."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from storage.backends import CHUNK, Folder, Storage
from store import artifacts
from store.artifacts import Digests, File
from store.models import Artifact


def put(storage: Storage, home: Folder, artifact: Artifact) -> Digests:
    """Its files are in the home folder. Raises FileNotFoundError where they are not, StorageUnavailable."""
    path = home.local_path(artifacts.key(artifact))
    if not artifacts.is_archive(artifact):
        storage.put_file(artifacts.key(artifact), path)
        with path.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
            return Digests([File(artifact.name, opened.tell(), sha256)], opened.tell(), sha256, None)
    names = _names(path)
    for name in names:
        storage.put_file(artifacts.key(artifact, name), path / name)
    return _digests(artifact, path, names)


def _names(folder: Path) -> list[str]:
    """Its files, in their order; what a link leads to is none of them."""
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if not found:  # rglob finds nothing in what is no folder, and says nothing
        raise FileNotFoundError(folder)
    return sorted(found)


def _digests(artifact: Artifact, folder: Path, names: list[str]) -> Digests:
    sizes = {name: (folder / name).stat().st_size for name in names}
    archive = artifacts.archive(artifact, sizes.items())
    each = {name: hashlib.sha256() for name in names}

    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        with (folder / name).open("rb", buffering=0) as file:
            file.seek(start)
            for at in range(start, end, CHUNK):
                yield file.read(min(CHUNK, end - at))

    def read_and_digest(name: str, start: int, end: int) -> Iterator[bytes]:
        for chunk in read(name, start, end):
            each[name].update(chunk)
            yield chunk

    checksum = archive.checksum(read_and_digest)
    whole = hashlib.sha256()
    for chunk in archive.read(0, archive.size, checksum, read):
        whole.update(chunk)
    files = [File(name, sizes[name], each[name].hexdigest()) for name in names]
    return Digests(files, archive.size, whole.hexdigest(), checksum)
