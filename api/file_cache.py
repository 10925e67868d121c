"""What was read of files, kept until one of them changes."""

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from cachetools import LRUCache

Read = TypeVar("Read")
Version = tuple[int, ...] | None

_SETTLED_SECONDS = 2.0
"""A file system may give two writes within its clock's resolution (at most 2 s, on FAT) the same time. So what was
written later than this is read again, as git does with its index."""


class FileCache(Generic[Read]):
    def __init__(self, most: int, settled_seconds: float = _SETTLED_SECONDS) -> None:
        """Keeps the `most` recently used."""
        self._kept: LRUCache[Hashable, Read] = LRUCache(most)
        self._settled_seconds = settled_seconds
        self._lock = threading.Lock()

    def get(self, key: Hashable, files: Iterable[Path], read: Callable[[], Read]) -> Read:
        """What `read` returned for `key` while the files were as they are now. What it raises is not kept."""
        versions = [(str(file), _version(file)) for file in sorted(files)]
        key = (key, *versions)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        newest = time.time_ns() - self._settled_seconds * 1e9
        found = read()
        if all(version is None or max(version[-2:]) <= newest for _, version in versions):
            with self._lock:
                self._kept[key] = found
        return found


def _version(file: Path) -> Version:
    """Another after every write: nobody can set ctime."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
