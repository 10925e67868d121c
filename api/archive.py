"""Streams a folder as a .tar.gz: nothing is written to disk, and memory stays flat whatever the size."""

import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 18


def tar_gz(folder: Path, root: str) -> Iterator[bytes]:
    """The files of `folder`, in the archive below `root`."""
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=_write, args=(folder, root, write_end))
    writer.start()
    try:
        with open(read_end, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_CHUNK):
                yield chunk
    finally:
        writer.join()


def _write(folder: Path, root: str, write_end: int) -> None:
    # A reader that has gone breaks the pipe, which ends the thread.
    with (
        suppress(BrokenPipeError),
        open(write_end, "wb") as pipe,
        # Weights hardly compress: the fastest level keeps the download as quick as the line.
        tarfile.open(fileobj=pipe, mode="w|gz", compresslevel=1) as archive,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.add(path, f"{root}/{path.relative_to(folder)}")
