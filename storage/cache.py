"""A folder of copies of what lies in a bucket, shared by the machines, so that each is fetched once.

A copy is locked for as long as somebody reads it, and then nobody removes it; the lock goes with its process. Of the
others the least recently used go when they are too much.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from storage.backends import Storage

MOST_BYTES = 10 << 30
"""Of all copies together, but for the one that has just been fetched and those that are being read."""
_DAY = 24 * 60 * 60
_SECONDS_BETWEEN_LOOKS = 0.1


def borrow(
    storage: Storage,
    key: str,
    copy: Path,
    beat: Callable[[], None] = lambda: None,
    most_bytes: int = MOST_BYTES,
) -> AbstractContextManager[Path]:
    """`copy` with the bytes of the key, for as long as the context lasts. While this fetches it, or waits for another
    who does, it calls `beat` now and then. Raises FileNotFoundError, StorageUnavailable."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    # Its file stays, to be locked again: there are 256 at most.
    with (copy.parent / f"lock-{copy.name[:2]}").open("w") as turn:
        while not _try(turn, fcntl.LOCK_EX | fcntl.LOCK_NB):
            beat()
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        while (held := _hold(copy, "rb", fcntl.LOCK_SH)) is None:
            storage.fetch(key, copy, beat)
            _drop_least_recently_used(copy.parent, most_bytes, keep=copy)
        os.utime(held.fileno())
    return _until_read(held, copy)


@contextmanager
def _until_read(held: IO[bytes], copy: Path) -> Iterator[Path]:
    with held:
        yield copy


def _hold(path: Path, mode: str, how: int) -> IO[bytes] | None:
    """The file, locked; None where there is none, or another holds it."""
    try:
        file = path.open(mode)
    except FileNotFoundError:
        return None
    if _try(file, how) and _is_still_at(file, path):
        return file
    file.close()
    return None


def _try(file: IO[Any], how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def _is_still_at(file: IO[bytes], path: Path) -> bool:
    """It may have been removed before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _drop_least_recently_used(folder: Path, most_bytes: int, keep: Path) -> None:
    """And what processes have left that were killed while they fetched."""
    copies = []
    for path in folder.iterdir():
        # Others do the same at the same time.
        with suppress(FileNotFoundError):
            status = path.stat()
            if path.name.endswith(".partial"):
                if time.time() - status.st_mtime > _DAY:
                    path.unlink()
            elif not path.name.startswith("lock-"):
                copies.append((status.st_mtime, status.st_size, path))
    total = 0
    for _, size, path in sorted(copies, reverse=True):
        total += size
        # r+: where the folder is on NFS, a lock of this kind wants a file that may be written.
        if total > most_bytes and path != keep and (held := _hold(path, "r+b", fcntl.LOCK_EX | fcntl.LOCK_NB)):
            with held:
                path.unlink(missing_ok=True)
