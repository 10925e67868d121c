"""Files that are whole or absent, also after a power cut: written beside, flushed to disk, renamed."""

import os
from pathlib import Path


def commit_folder(beside: Path, final: Path) -> None:
    """Moves the folder `beside` to `final`, on the same file system, once every byte of it is on disk."""
    for path in sorted(beside.rglob("*")):
        sync(path)
    sync(beside)
    beside.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
