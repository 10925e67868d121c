"""A cache of files from a bucket, in a folder that the machines share, so that each is fetched once.

A file is locked while it is read and cannot be removed then; a process that dies releases its locks. When the cache is
too large, the least recently used of the unlocked files are removed. cachetools cannot do this: it evicts from the
memory of one process, and here several machines share files that each of them may be reading.
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
"""Limit of all copies together, without the one just fetched and those being read."""
_DAY = 24 * 60 * 60
_POLL_SECONDS = 0.1


def acquire(
    storage: Storage,
    key: str,
    copy: Path,
    heartbeat: Callable[[], None] = lambda: None,
    most_bytes: int = MOST_BYTES,
) -> AbstractContextManager[Path]:
    """The path `copy` with the bytes of the key, which stays there until the context ends. Calls `heartbeat` now and
    then while it fetches them or waits for another process that does. Raises FileNotFoundError, StorageUnavailable,
    before the context is entered."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    # A copy that is there waits for no fetch, which may be that of another file: several share a lock.
    held = _lock(copy, "rb", fcntl.LOCK_SH | fcntl.LOCK_NB)
    if held is None:
        held = _fetch(storage, key, copy, heartbeat, most_bytes)
    os.utime(held.fileno())
    return _until_closed(held, copy)


def _fetch(storage: Storage, key: str, copy: Path, heartbeat: Callable[[], None], most_bytes: int) -> IO[bytes]:
    """The copy, open and locked. One process fetches it, the others wait for that."""
    # Lock files are never removed: there are 256 at most.
    with (copy.parent / f"lock-{copy.name[:2]}").open("w") as turn:
        while not _try_lock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB):
            heartbeat()
            time.sleep(_POLL_SECONDS)
        while (held := _lock(copy, "rb", fcntl.LOCK_SH)) is None:
            storage.fetch(key, copy, heartbeat)
            _drop_least_recently_used(copy.parent, most_bytes, keep=copy)
    return held


@contextmanager
def _until_closed(held: IO[bytes], copy: Path) -> Iterator[Path]:
    with held:
        yield copy


def _lock(path: Path, mode: str, how: int) -> IO[bytes] | None:
    """The open file, locked; None where it is missing, or another process holds the lock."""
    try:
        file = path.open(mode)
    except FileNotFoundError:
        return None
    if _try_lock(file, how) and _is_still_at(file, path):
        return file
    file.close()
    return None


def _try_lock(file: IO[Any], how: int) -> bool:
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True


def _is_still_at(file: IO[bytes], path: Path) -> bool:
    """Whether the file was not removed between its opening and its locking."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _drop_least_recently_used(folder: Path, most_bytes: int, keep: Path) -> None:
    """Also removes the leftovers of processes that were killed while they fetched."""
    copies = []
    for path in folder.iterdir():
        # Other processes may be doing the same.
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
        # r+: on NFS an exclusive lock needs a file that is open for writing.
        if total > most_bytes and path != keep and (held := _lock(path, "r+b", fcntl.LOCK_EX | fcntl.LOCK_NB)):
            with held:
                path.unlink(missing_ok=True)
