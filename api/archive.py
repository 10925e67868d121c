"""Streams a folder as a .tar.gz: nothing is written to disk, and memory stays flat whatever the size."""

import gzip
import os
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_CHUNK = 1 << 18


def tar_gz(folder: Path, root: str) -> Iterator[bytes]:
    """The files of `folder`, in the archive below `root`. Raises OSError when one of them cannot be read."""
    read_end, write_end = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(_write, folder, root, write_end)
        with open(read_end, "rb", buffering=0) as pipe:
            while chunk := pipe.read(_CHUNK):
                yield chunk
        writing.result()


def _write(folder: Path, root: str, write_end: int) -> None:
    with (
        suppress(BrokenPipeError),  # the reader has gone
        # Before all that can fail: the reader waits until this end is closed.
        open(write_end, "wb") as pipe,
        # Weights hardly compress: the fastest level keeps the download as quick as the line.
        gzip.GzipFile(fileobj=pipe, mode="wb", compresslevel=1) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as archive,
    ):
        for path in _files(folder):
            archive.add(path, f"{root}/{path.relative_to(folder)}")


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():  # rglob finds nothing there, and says nothing
        raise FileNotFoundError(folder)
    return sorted(path for path in folder.rglob("*") if path.is_file())
