"""A cache of folders from a bucket, so that each is fetched once. Above a limit the least recently used ones go.

A reader holds no lock, for it may be another program: a folder stays for some time after its last use instead.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.cache import MOST_BYTES

_IN_USE = 15 * 60
"""Seconds after its last use for which a folder stays: a request may wait that long before it is read."""


def use(folder: Path) -> bool:
    """Whether the folder is there. It stays for a while then."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def adding(cache: Path, folder: Path, most_bytes: int = MOST_BYTES) -> Iterator[Path]:
    """A path for a new folder, which becomes `folder` below `cache` when the context ends. An error leaves nothing."""
    beside = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}")
    try:
        yield beside
        if beside.is_dir():
            _commit(beside, folder)
            _drop_least_recently_used(cache, most_bytes)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _commit(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError:
        if not use(folder):  # unless another request was faster
            raise


def _drop_least_recently_used(cache: Path, most_bytes: int) -> None:
    """Also drops what processes left that were killed while they fetched."""
    total = 0
    for used_at, size, folder in sorted(_folders(cache), reverse=True):
        total += size
        if total > most_bytes and time.time() - used_at > _IN_USE:
            # Renamed first: a folder that is found is whole.
            gone = folder.with_name(f"{folder.name}.{secrets.token_hex(8)}")
            with suppress(FileNotFoundError):  # another process drops it too
                folder.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)


def _folders(cache: Path) -> Iterator[tuple[float, int, Path]]:
    """The time of the last use, the bytes and the path of each: the topmost folders with files."""
    for parent, folders, names in os.walk(cache):
        if names:
            folders.clear()
            files = [path for path in Path(parent).rglob("*") if path.is_file()]
            with suppress(FileNotFoundError):  # another process drops it
                yield Path(parent).stat().st_mtime, sum(path.stat().st_size for path in files), Path(parent)
