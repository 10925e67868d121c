"""From the bytes of a file to its rows: JSON Lines, one JSON array, CSV, each packed by gzip or not, and Parquet.

No row is held twice, nothing is unpacked or decoded past its limit, and the hash is of the very bytes that are read.
"""

import codecs
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from contract.quote import cut
from dataset.csv_rows import csv_rows
from dataset.json_rows import json_rows
from dataset.limits import LONGEST_ROW
from dataset.parquet_rows import parquet_rows
from dataset.refusal import BadFile

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
_LIGHT = 8 << 20
"""Bytes that are read in less time than a process takes to start."""


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def read_rows(path: Path, name: str, largest: int | None, sha256: Hash | None) -> Iterator[Any]:
    """A row that cannot be read is a BadRow in its place, where those after it can. `name` is what people call the
    file: CSV is known by it, and the others by their first bytes. Raises BadFile, BadRow."""
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if largest is not None and before.st_size > largest:
                raise BadFile(
                    f"has {before.st_size} bytes, and the service takes none larger than {largest} bytes; split it"
                )
            start = os.pread(file.fileno(), len(PARQUET), 0)
            if start == PARQUET:
                _hash_whole(file, sha256)
                yield from parquet_rows(file, largest)
                if _changed(before, os.fstat(file.fileno())):
                    raise BadFile(f"{cut(name)} changed while it was read; submit it when it is whole")
            else:
                read = io.BufferedReader(_Hashing(file, sha256), 1 << 20)
                lines = _unpacked(read, largest) if start.startswith(GZIP) else _lines(read)
                yield from _rows_of(name, lines)
    except OSError as error:
        raise BadFile(f"{cut(name)} cannot be read: {error.strerror}") from error


def is_light(path: Path) -> bool:
    """Whether to read it takes a moment and little memory: it is small, and nothing unpacks or decodes it. True of what
    cannot be read: whoever reads its rows says why."""
    try:
        with path.open("rb", buffering=0) as file:
            start = file.read(len(PARQUET))
            return os.fstat(file.fileno()).st_size <= _LIGHT and start != PARQUET and not start.startswith(GZIP)
    except OSError:
        return True


def _rows_of(name: str, lines: Iterator[bytes]) -> Iterator[Any]:
    """What was uploaded lies under its digest, without the name that it had: there its first character tells. A row of
    JSON is an object, and no sane header begins like one."""
    first = next((line for line in lines if line.strip()), b"")
    is_json = first.lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith((b"{", b"["))
    named_csv = name.lower().removesuffix(".gz").endswith(".csv")
    if named_csv and is_json:
        raise BadFile("is named .csv, and begins as JSON does; name it .jsonl, or name its first column otherwise")
    lines = itertools.chain([first], lines)
    return csv_rows(lines) if named_csv or not (is_json or "." in name) else json_rows(lines)


class _Hashing(io.RawIOBase):
    """A file that hashes what is read of it."""

    def __init__(self, file: io.FileIO, sha256: Hash | None) -> None:
        self._file = file
        self._sha256 = sha256

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count = self._file.readinto(buffer)
        if self._sha256 is not None and count:
            self._sha256.update(memoryview(buffer)[:count])
        return count


def _hash_whole(file: io.FileIO, sha256: Hash | None) -> None:
    """Parquet is read from its end: it is hashed before."""
    while sha256 is not None and (piece := file.read(1 << 20)):
        sha256.update(piece)
    file.seek(0)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file. One longer than a row may be comes in pieces of more than LONGEST_ROW bytes."""
    while line := file.readline(LONGEST_ROW + 1):
        yield line


def _unpacked(file: io.BufferedIOBase, largest: int | None) -> Iterator[bytes]:
    size = 0
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            for line in _lines(unpacked):
                size += len(line)
                if largest is not None and size > largest:
                    raise BadFile(f"unpacks to more than {largest} bytes, the most that the service takes; split it")
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadFile(f"is no whole gzip file: {error}") from error
