"""The bytes that a backup has: what the rows name in the storage, and the run folders of the jobs."""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from storage.backends import CHUNK, FolderStorage, Storage
from store import artifacts
from store.backup.archive import ArchiveWriter
from store.datasets import blob_key
from store.models import Artifact, Blob, Job

STORAGE, HOME = "storage/", "home/"
"""Prefixes of the members: a key of the storage, be it a folder or a bucket, and a file of the home folder."""
_TEMPORARY = (".partial", ".gone")


@dataclass(frozen=True)
class Named:
    """What the rows name."""

    keys: dict[str, str]
    """SHA-256 by key of the storage."""
    jobs: list[str]


def read_named(connection: Connection) -> Named:
    session = Session(connection)
    keys = {blob_key(sha256): sha256 for sha256 in session.scalars(select(Blob.sha256))}
    for artifact in session.scalars(select(Artifact).where(Artifact.sha256.is_not(None))):
        in_folder = artifacts.is_archive(artifact)
        for file in artifacts.files(artifact):
            keys[artifacts.key(artifact, file.name if in_folder else None)] = file.sha256
    return Named(keys, list(session.scalars(select(Job.id).order_by(Job.id))))


def copy_named(writer: ArchiveWriter, storage: Storage, named: Named) -> tuple[set[str], set[str]]:
    """Copies what is not in the archive yet. Returns the keys that are missing in the storage, and those whose bytes
    have changed. Raises StorageUnavailable."""
    missing, changed = set(), set()
    for key, sha256 in named.keys.items():
        if f"{STORAGE}{key}" in writer.digests:
            digest = writer.digests[f"{STORAGE}{key}"]
        else:
            try:
                size, chunks = storage.size(key), storage.read(key)
                begin = next(chunks, b"")  # before the archive announces it
            except FileNotFoundError:
                missing.add(key)
                continue
            digest = writer.add(f"{STORAGE}{key}", size, chain([begin], chunks))
        if digest != sha256:
            changed.add(key)
    return missing, changed


def copy_runs(writer: ArchiveWriter, home: Path, named: Named) -> None:
    """Copies the run folders, without what the rows name in the storage.

    Jobs run meanwhile. A training checkpoint that is deleted while it is copied has a successor, which the next look
    finds.
    """
    for job_id in named.jobs:
        while _copy_new(writer, home, home / "runs" / job_id, named.keys):
            pass


def _copy_new(writer: ArchiveWriter, home: Path, folder: Path, known: Collection[str]) -> bool:
    """Returns whether a file vanished."""
    vanished = False
    for path in _files(folder):
        key = str(path.relative_to(home))
        if key in known or f"{HOME}{key}" in writer.digests:
            continue
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            vanished = True
            continue
        with file:
            writer.add(f"{HOME}{key}", os.fstat(file.fileno()).st_size, iter(partial(file.read, CHUNK), b""))
    return vanished


def _files(folder: Path) -> Iterator[Path]:
    """All files below the folder, without links and without what is half written or half deleted."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.endswith(_TEMPORARY):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry)


def occupied(storage: Storage, home: FolderStorage) -> str | None:
    """A file of an earlier service in the storage or the home folder."""
    for folder in ("runs", "blobs"):
        for where in (home, storage):
            if (key := where.first_key(folder)) is not None:
                return key
    return None
