"""Restores a backup into an empty database, an empty home folder and an empty storage.

Everything is read into hidden folders first. Only an archive that is whole is put in place: the files, then the rows
in one transaction.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from sqlalchemy import Engine

from runtime.settings import StoreSettings
from storage.backends import FolderStorage, Storage, make_storage
from store import schema
from store.backup import files, tables
from store.backup.archive import MANIFEST, ArchiveReader, BackupError, Header, Manifest, parsed
from store.session import make_engine

_STAGE = ".restore"
_TOPS = ("runs", "blobs")
Migrate = Callable[[str], None]


def restore(settings: StoreSettings, stream: IO[bytes], migrate: Migrate) -> Manifest:
    """Restores a service that does not run. `migrate` brings the database to a revision. Raises BackupError,
    StorageUnavailable."""
    engine, storage, home = make_engine(settings), make_storage(settings), FolderStorage(settings.home)
    try:
        reader = ArchiveReader(stream)
        stage = _Stage(settings.home, storage)
        try:
            _check_empty(engine, storage, home, reader.header)
            manifest = stage.fill(reader)
            migrate(reader.header.revision)
            with engine.begin() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                for table in manifest.tables:
                    tables.read(connection, table, map(stage.read, table.parts))
                stage.put_in_place(manifest)
        finally:
            stage.clear()
        migrate(schema.HEAD)
    finally:
        engine.dispose()
    return manifest


def migrate_by_process(revision: str) -> None:
    """Runs the migrations up to a revision, as a process: the store does not import them. Raises BackupError."""
    done = subprocess.run([sys.executable, "-P", "-m", "migrations", revision], stdout=sys.stderr)
    if done.returncode:
        raise BackupError(f"the database cannot be migrated to {revision}")


def _check_empty(engine: Engine, storage: Storage, home: FolderStorage, header: Header) -> None:
    if header.revision not in schema.REVISIONS:
        raise BackupError(
            f"it has the schema {header.revision}, which this version does not know: restore it with the version that "
            "made it, or a newer one"
        )
    with engine.begin() as connection:
        found, table = schema.revision_of(connection), tables.first_with_rows(connection)
    if table is not None:
        raise BackupError(f"the database is not empty: its table {table} has rows; restore into a new database")
    if found is not None and found not in schema.REVISIONS[: schema.REVISIONS.index(header.revision) + 1]:
        raise BackupError(
            f"the database has the schema {found} already, which is newer than the backup's {header.revision}; restore "
            "into a new database, to which no migration was applied"
        )
    if (key := files.occupied(storage, home)) is not None:
        raise BackupError(f"there are files of another service, such as {key}; restore into an empty home and storage")


class _Stage:
    """Hidden folders that receive the archive: beside their final places, or for a bucket in the home folder."""

    def __init__(self, home: Path, storage: Storage) -> None:
        self._home = home
        self._storage = storage
        self._made = [folder for folder in _TOPS if not (home / folder).exists()]
        self.clear()

    def fill(self, reader: ArchiveReader) -> Manifest:
        """Reads the whole archive. Raises BackupError if it is torn or damaged."""
        digests: dict[str, str] = {}
        for name, chunks in reader.members():
            if name == MANIFEST:
                manifest = parsed(Manifest, chunks)
                self._compare(manifest, digests)
                return manifest
            digests[name] = self._receive(self._path(name), chunks)
        raise BackupError("it is torn: its end is missing")

    def _receive(self, path: Path, chunks: Iterable[bytes]) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
        return digest.hexdigest()

    def _compare(self, manifest: Manifest, digests: dict[str, str]) -> None:
        for name, expected in manifest.digests.items():
            if digests.get(name) != expected:
                raise BackupError(f"it is damaged: its member {name} is not what was written")
        for name in digests.keys() - manifest.digests.keys():
            self._path(name).unlink(missing_ok=True)

    def read(self, part: str) -> bytes:
        return self._path(part).read_bytes()

    def put_in_place(self, manifest: Manifest) -> None:
        """Renames the files of the home folder to their names, and uploads those of a bucket."""
        for name in manifest.digests:
            if self._is_for_bucket(name):
                self._storage.put_file(name.removeprefix(files.STORAGE), self._path(name))
        for folder in _TOPS:
            if (stage := self._home / folder / _STAGE).is_dir():
                for child in stage.iterdir():
                    child.rename(self._home / folder / child.name)

    def _is_for_bucket(self, name: str) -> bool:
        return self._storage.remote and name.startswith(files.STORAGE)

    def _path(self, name: str) -> Path:
        kind, _, key = name.partition("/")
        if kind == "tables" or self._is_for_bucket(name):
            return self._home / _STAGE / name
        top, _, rest = key.partition("/")
        if f"{kind}/" not in (files.STORAGE, files.HOME) or top not in _TOPS:
            raise BackupError(f"it has a member {name}, which no backup has")
        # Beside its final place: such a folder may be a link to another disk.
        return self._home / top / _STAGE / rest

    def clear(self) -> None:
        """Removes the hidden folders, also those of a restore that was killed."""
        for folder in (self._home, *(self._home / folder for folder in _TOPS)):
            shutil.rmtree(folder / _STAGE, ignore_errors=True)
        for name in self._made:
            with suppress(OSError):
                (self._home / name).rmdir()
