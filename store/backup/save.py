"""Writes a backup."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import IO

from sqlalchemy import Connection, Engine

from runtime.settings import StoreSettings
from storage.backends import make_storage
from store import schema
from store.backup import files, tables
from store.backup.archive import ArchiveWriter, BackupError, Header, Manifest, Table
from store.session import make_engine


@dataclass(frozen=True)
class Saved:
    """What a backup has, and what it could not have."""

    manifest: Manifest
    bytes: int
    missing: set[str]
    """Keys that rows name and the storage does not have."""
    changed: set[str]
    """Keys whose bytes do not have the digest of their row."""


def save(settings: StoreSettings, stream: IO[bytes]) -> Saved:
    """Writes a backup of a service, which may be running. Raises BackupError, StorageUnavailable."""
    engine, storage = make_engine(settings), make_storage(settings)
    try:
        with _snapshot(engine) as connection:
            if (problem := schema.mismatch(schema.revision_of(connection))) is not None:
                raise BackupError(problem)
            named = files.read_named(connection)
        writer = ArchiveWriter(stream, Header(revision=schema.HEAD, created_at=datetime.now(UTC).isoformat()))
        files.copy_named(writer, storage, named)
        files.copy_runs(writer, settings.home, named)
        found: set[str] = set()
        for number in count(1):
            with _snapshot(engine) as connection:
                written = tables.write(writer, connection, f"tables/{number}")
                named = files.read_named(connection)
            before = found
            found, changed = files.copy_named(writer, storage, named)
            # What is missing may just have been deleted with its rows: then these rows are not the ones to keep.
            if found <= before:
                break
    finally:
        engine.dispose()
    manifest = _manifest(writer, written, named)
    writer.close(manifest)
    return Saved(manifest, writer.bytes, found, changed)


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """Without the limit of store.session: a large table takes long."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield connection


def _manifest(writer: ArchiveWriter, written: list[Table], named: files.Named) -> Manifest:
    """Names the rows of the last snapshot, and the files of what it has."""
    parts = {part for table in written for part in table.parts}
    jobs = set(named.jobs)

    def counts(name: str) -> bool:
        if name.startswith(files.STORAGE):
            return name.removeprefix(files.STORAGE) in named.keys
        if name.startswith(files.HOME):
            return name.split("/")[2] in jobs
        return name in parts

    return Manifest(tables=written, digests={name: sha for name, sha in writer.digests.items() if counts(name)})
