"""Files that are complete or absent, even after a power cut: written beside their place, flushed to disk, renamed."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from contract.run_dir import partial_path


@contextlib.contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """A new folder to write to, which becomes `final` at the end. A failure removes it, since half-written files might
    hold the last free space of the disk."""
    beside = partial_path(final)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        commit_folder(beside, final)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def commit_folder(beside: Path, final: Path) -> None:
    """Renames the folder `beside` to `final`, on the same file system, once all its bytes are on disk."""
    for path in sorted(beside.rglob("*")):
        sync(path)
    sync(beside)
    beside.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's entries, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
