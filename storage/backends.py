"""Stores the bytes of datasets and artifacts in the home folder, or in a bucket of S3 or a compatible service.

In both, a key is a path relative to the home folder, such as `runs/JOB/attempt-1/adapter/adapter_config.json`, and the
bytes under a key never change. Both raise FileNotFoundError for a key that does not exist, and ValueError for one that
leads out of the storage. A bucket raises StorageUnavailable when it does not answer or refuses.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol, runtime_checkable

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from runtime.atomic_files import replacing
from runtime.settings import StoreSettings
from storage.errors import StorageUnavailable

CHUNK = 2 << 20
"""Bytes of each read of a file. A download holds three chunks at most; larger ones make it faster
(benchmarks/downloads.py)."""
LARGEST_CHUNK = 4 << 20
"""Bytes of each read from a bucket, where every request has a delay."""
_PART = 5 << 20
"""Bytes of each part of an upload, the least that S3 accepts. An upload has 10,000 parts at most."""
_PARTS_AT_ONCE = 4
_LONGEST_REQUEST = timedelta(seconds=30)
_LONGEST_RETRY = timedelta(seconds=10)


@runtime_checkable
class Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


class FolderStorage:
    """Storage in a folder of this machine, or of a disk that all machines share."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def local_path(self, key: str) -> Path:
        """The file or folder of the key. Refuses links that lead out of the storage."""
        try:
            path = self._below(key).resolve(strict=True)
        except (RuntimeError, NotADirectoryError) as error:  # RuntimeError: a loop of links
            raise FileNotFoundError(key) from error
        # A whole folder, such as runs, may be a link to another disk.
        if not path.is_relative_to((self._path / key.partition("/")[0]).resolve()):
            raise FileNotFoundError(f"{key} leads out of the storage, to {path}")
        return path

    def _below(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise ValueError(f"{key!r} is no key")
        return self._path / key

    def put_file(self, key: str, path: Path) -> None:
        """Stores a file under the key, wholly or not at all. The file must not change afterwards: where the disk allows
        it, it is linked and not copied."""
        target = self._below(key)
        if target.exists() and target.samefile(path):
            return
        with replacing(target) as beside:
            try:
                os.link(path, beside)
            except OSError:  # on another disk, or one without hard links
                shutil.copyfile(path, beside)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[Writer]:
        """A writer whose bytes are stored under the key when the context ends, and discarded if it ends by an error."""
        with replacing(self._below(key)) as beside, beside.open("wb") as file:
            yield file

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end` in chunks. Raises EOFError where there are fewer."""
        with self.local_path(key).open("rb", buffering=0) as file:
            left = (os.fstat(file.fileno()).st_size if end is None else end) - start
            file.seek(start)
            while left > 0:
                chunk = file.read(min(CHUNK, left))
                if not chunk:
                    raise EOFError(f"{key} ends before {left} more bytes")
                left -= len(chunk)
                yield chunk

    def size(self, key: str) -> int:
        return self.local_path(key).stat().st_size

    def exists(self, key: str) -> bool:
        return _exists(self, key)

    def first_key(self, folder: str) -> str | None:
        """A key below the folder; None without any."""
        found = (path for path in self._below(folder).rglob("*") if not path.is_dir())
        return next((str(path.relative_to(self._path)) for path in found), None)

    def delete(self, key: str) -> None:
        """Deletes the bytes of the key, if it exists."""
        self._below(key).unlink(missing_ok=True)

    def delete_tree(self, key: str) -> None:
        """Deletes the file or folder of the key, if it exists. Raises OSError."""
        path = self._below(key)
        if path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # another process deletes it too
                shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def fetch(self, key: str, path: Path, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Copies the bytes of the key to a file, wholly or not at all, and makes its folder. Calls `heartbeat` after
        each chunk."""
        _fetch(self, key, path, heartbeat)


class BucketStorage:
    """Storage in a bucket. A process makes its own after any fork: obstore's threads do not survive a fork, and calls
    would never return."""

    remote = True

    def __init__(self, name: str, prefix: str, secret_key: str | None = None) -> None:
        """Reads the address and credentials from the usual AWS_* variables, as obstore does; `secret_key` takes the
        place of AWS_SECRET_ACCESS_KEY."""
        self._store = S3Store(
            name,
            prefix=prefix or None,
            config=None if secret_key is None else {"secret_access_key": secret_key},
            # AWS_ENDPOINT_URL decides between http and https, which is the default.
            client_options={"timeout": _LONGEST_REQUEST, "allow_http": True},
            # Fails soon: a caller that can wait tries again.
            retry_config={"max_retries": 3, "retry_timeout": _LONGEST_RETRY},
        )

    def local_path(self, key: str) -> None:
        return None

    def put_file(self, key: str, path: Path) -> None:
        path.stat()  # obstore would report a missing file as a problem of the bucket
        with _writing(key):
            obstore.put(self._store, key, path, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[Writer]:
        with (
            _writing(key),
            obstore.open_writer(self._store, key, buffer_size=_PART, max_concurrency=_PARTS_AT_ONCE) as writer,
        ):
            yield writer

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        end = self.size(key) if end is None else end
        # One request for each chunk: a slow reader holds no connection open, and a broken request is retried.
        for offset in range(start, end, LARGEST_CHUNK):
            wanted = min(LARGEST_CHUNK, end - offset)
            with self._reading(key):
                chunk = obstore.get_range(self._store, key, start=offset, length=wanted).to_bytes()
            if len(chunk) != wanted:
                raise EOFError(f"{key} ends at {offset + len(chunk)} bytes, and not at {end}")
            yield chunk

    def size(self, key: str) -> int:
        with self._reading(key):
            return obstore.head(self._store, key)["size"]

    def exists(self, key: str) -> bool:
        return _exists(self, key)

    def first_key(self, folder: str) -> str | None:
        with _writing(folder):
            found = next(obstore.list(self._store, folder, chunk_size=1), [])
        return next((str(each["path"]) for each in found), None)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError), self._reading(key):
            obstore.delete(self._store, key)

    def delete_tree(self, key: str) -> None:
        """Deletes the object of the key, and all objects whose keys begin with it and "/"."""
        with _writing(key):
            for found in obstore.list(self._store, prefix=key):
                obstore.delete(self._store, [each["path"] for each in found])
        self.delete(key)

    def fetch(self, key: str, path: Path, heartbeat: Callable[[], None] = lambda: None) -> None:
        _fetch(self, key, path, heartbeat)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Raises StorageUnavailable, not FileNotFoundError, when the whole bucket is missing: that may pass."""
        try:
            with _translated(key):
                yield
        except FileNotFoundError:
            with _writing(key):
                next(obstore.list(self._store, key), None)
            raise


Storage = FolderStorage | BucketStorage


def make_storage(settings: StoreSettings) -> Storage:
    if settings.storage is None:
        return FolderStorage(settings.home)
    name, _, prefix = settings.storage.removeprefix("s3://").partition("/")
    secret = settings.storage_secret_key
    return BucketStorage(name, prefix.strip("/"), None if secret is None else secret.get_secret_value())


def _exists(storage: Storage, key: str) -> bool:
    try:
        storage.size(key)
    except FileNotFoundError:
        return False
    return True


def _fetch(storage: Storage, key: str, path: Path, heartbeat: Callable[[], None]) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        for chunk in storage.read(key):
            file.write(chunk)
            heartbeat()


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Raises errors of a bucket as StorageUnavailable."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # an error of the caller's own work, or of the local file
        raise _unavailable(key, error) from None


@contextmanager
def _writing(key: str) -> Iterator[None]:
    """Raises StorageUnavailable also for a missing bucket."""
    try:
        with _translated(key):
            yield
    except FileNotFoundError as error:
        if error.errno is not None:
            raise
        raise _unavailable(key, error) from None  # the bucket itself is missing


def _unavailable(key: str, error: Exception) -> StorageUnavailable:
    # Only the first line: the others hold the whole request.
    return StorageUnavailable(f"{key}: {str(error).splitlines()[0]}")
