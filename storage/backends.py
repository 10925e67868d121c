"""Where the bytes of datasets and artifacts are kept: the home folder, or a bucket of S3 or what speaks its language.

A key is a path relative to the home folder, such as `runs/JOB/attempt-1/adapter/adapter_config.json`, in both. What is
written under a key does not change any more. Both raise FileNotFoundError where nothing has the key, ValueError for a
key that leads out, and a bucket StorageUnavailable where it does not answer, or refuses.
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

from runtime.settings import StoreSettings
from storage.errors import StorageUnavailable

CHUNK = 2 << 20
"""Bytes in memory of each read of a file: a download has three of them at most, and is the faster, the larger they
are (benchmarks/downloads.py)."""
LARGEST_CHUNK = 4 << 20
"""Likewise of each request to a bucket, where every one has its delay."""
_PART = 5 << 20
"""Likewise of each part of an upload that is on its way: the least that S3 takes. There are 10,000 at most."""
_PARTS_AT_ONCE = 4
_LONGEST_REQUEST = timedelta(seconds=30)
_LONGEST_RETRY = timedelta(seconds=10)


@runtime_checkable
class Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


class Folder:
    """On this machine, or on a disk that all machines share."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def local_path(self, key: str) -> Path:
        """The file or folder of the key. No link leads out of it."""
        try:
            path = self._below(key).resolve(strict=True)
        except (RuntimeError, NotADirectoryError) as error:  # RuntimeError: links that go in circles
            raise FileNotFoundError(key) from error
        # The operator may have put a whole folder, such as runs, on another disk.
        if not path.is_relative_to((self._path / key.partition("/")[0]).resolve()):
            raise FileNotFoundError(f"{key} leads out of the storage, to {path}")
        return path

    def _below(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/") or "\0" in key:
            raise ValueError(f"{key!r} is no key")
        return self._path / key

    def put_file(self, key: str, path: Path) -> None:
        """Keeps the bytes of a file under the key, all of them or none. The file is not to change afterwards: it gets a
        second name, where the disk allows that, and no copy."""
        target = self._below(key)
        if target.exists() and target.samefile(path):
            return
        with replacing(target) as beside:
            try:
                os.link(path, beside)
            except OSError:  # on another disk, or one that knows no links
                shutil.copyfile(path, beside)

    @contextmanager
    def open_writer(self, key: str) -> Iterator[Writer]:
        """What is written is there once this ends, and none of it where it ends by an error."""
        with replacing(self._below(key)) as beside, beside.open("wb") as file:
            yield file

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, in chunks, whatever the size. Raises EOFError where there are fewer."""
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
        return _is_there(self, key)

    def delete(self, key: str) -> None:
        """Raises nothing where there is none."""
        self._below(key).unlink(missing_ok=True)

    def fetch(self, key: str, path: Path, beat: Callable[[], None] = lambda: None) -> None:
        """Copies it to a file, whose folder is made; the file is whole or not there. `beat` is called after each
        chunk."""
        _fetch(self, key, path, beat)


class Bucket:
    """A process makes one after any fork: obstore's threads do not outlive it, and its calls would never return."""

    remote = True

    def __init__(self, name: str, prefix: str) -> None:
        """It is reached with the usual AWS_* variables, which obstore reads itself."""
        self._store = S3Store(
            name,
            prefix=prefix or None,
            # Whether it is http is for AWS_ENDPOINT_URL to say, which is https where it is not set.
            client_options={"timeout": _LONGEST_REQUEST, "allow_http": True},
            # Whoever waits for it is told soon; who can wait tries again.
            retry_config={"max_retries": 3, "retry_timeout": _LONGEST_RETRY},
        )

    def local_path(self, key: str) -> None:
        return None

    def put_file(self, key: str, path: Path) -> None:
        path.stat()  # raises what obstore would tell as it tells of a bucket
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
        # Each by a request of its own: a slow reader holds none open, and one that breaks off is tried again.
        for offset in range(start, end, LARGEST_CHUNK):
            wanted = min(LARGEST_CHUNK, end - offset)
            with self._asking(key):
                chunk = obstore.get_range(self._store, key, start=offset, length=wanted).to_bytes()
            if len(chunk) != wanted:
                raise EOFError(f"{key} ends at {offset + len(chunk)} bytes, and not at {end}")
            yield chunk

    def size(self, key: str) -> int:
        with self._asking(key):
            return obstore.head(self._store, key)["size"]

    def exists(self, key: str) -> bool:
        return _is_there(self, key)

    def delete(self, key: str) -> None:
        with suppress(FileNotFoundError), self._asking(key):
            obstore.delete(self._store, key)

    def fetch(self, key: str, path: Path, beat: Callable[[], None] = lambda: None) -> None:
        _fetch(self, key, path, beat)

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        """Where the bucket itself is not there, no key is: that is StorageUnavailable, and may pass."""
        try:
            with _told(key):
                yield
        except FileNotFoundError:
            with _writing(key):
                next(obstore.list(self._store, key), None)
            raise


Storage = Folder | Bucket


def make_storage(settings: StoreSettings) -> Storage:
    if settings.storage is None:
        return Folder(settings.home)
    name, _, prefix = settings.storage.removeprefix("s3://").partition("/")
    return Bucket(name, prefix.strip("/"))


def _is_there(storage: Storage, key: str) -> bool:
    try:
        storage.size(key)
    except FileNotFoundError:
        return False
    return True


def _fetch(storage: Storage, key: str, path: Path, beat: Callable[[], None]) -> None:
    with replacing(path) as beside, beside.open("wb") as file:
        for chunk in storage.read(key):
            file.write(chunk)
            beat()


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """What is written to this path takes the place of `target`, where all goes well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.urandom(6).hex()}.partial")
    try:
        yield beside
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def _told(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # of what the caller does meanwhile, or of the file that is put
        raise _away(key, error) from None


@contextmanager
def _writing(key: str) -> Iterator[None]:
    try:
        with _told(key):
            yield
    except FileNotFoundError as error:
        if error.errno is not None:
            raise
        raise _away(key, error) from None  # the bucket itself


def _away(key: str, error: Exception) -> StorageUnavailable:
    # The first line: the others are for who works on obstore, and have the whole request in them.
    return StorageUnavailable(f"{key}: {str(error).splitlines()[0]}")
