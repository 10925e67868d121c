"""From the bytes of a file to its rows: JSON Lines, one JSON array, CSV, plain text, each packed or not, and Parquet.

No row is held twice, nothing is unpacked or decoded past its limit, and the hash is of the very bytes that are read.
"""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from contract.quote import cut
from dataset.limits import LONGEST_ROW
from dataset.reading.csv_rows import csv_rows
from dataset.reading.encoding import as_utf8
from dataset.reading.json_rows import json_rows
from dataset.reading.parquet_rows import parquet_rows
from dataset.reading.signatures import LONGEST, check_readable
from dataset.reading.text_rows import text_rows
from dataset.reading.unpack import is_packed, unpacked, unpacked_name
from dataset.refusal import BadFile

PARQUET = b"PAR1"
_TEXT = (".txt", ".md")
_LIGHT = 8 << 20
"""Bytes that are read in less time than a process takes to start."""
_ROWS_OF_JSON = re.compile(rb"(\[\s*)?\{\s*[\"}]")
"""How rows of JSON begin, where a text may begin with a bracket too."""


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def read_rows(path: Path, name: str, largest: int | None, sha256: Hash | None) -> Iterator[Any]:
    """A row that cannot be read is a BadRow in its place, where those after it can. `name` is what people call the
    file: CSV and plain text are known by it, and the others by their first bytes. The pieces of a plain text are
    PlainText, and all other rows what JSON can hold. Raises BadFile, BadRow."""
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if largest is not None and before.st_size > largest:
                raise BadFile(
                    f"has {before.st_size} bytes, and the service takes none larger than {largest} bytes; split it"
                )
            if os.pread(file.fileno(), len(PARQUET), 0) == PARQUET:
                _hash_whole(file, sha256)
                yield from parquet_rows(file, largest)
                if _changed(before, os.fstat(file.fileno())):
                    raise BadFile(f"{cut(name)} changed while it was read; submit it when it is whole")
            else:
                yield from _rows_of(name, io.BufferedReader(_Hashing(file, sha256), 1 << 20), largest)
    except OSError as error:
        raise BadFile(f"{cut(name)} cannot be read: {error.strerror}") from error


def is_light(path: Path) -> bool:
    """Whether to read it takes a moment and little memory: it is small, and nothing unpacks or decodes it. True of what
    cannot be read: whoever reads its rows says why."""
    try:
        with path.open("rb", buffering=0) as file:
            start = file.read(LONGEST)
            return os.fstat(file.fileno()).st_size <= _LIGHT and not (start.startswith(PARQUET) or is_packed(start))
    except OSError:
        return True


def _rows_of(name: str, file: io.BufferedReader, largest: int | None) -> Iterator[Any]:
    start = file.peek(LONGEST)[:LONGEST]
    if is_packed(start):
        file = unpacked(file, start, largest)
        start = file.peek(LONGEST)[:LONGEST]
        if start.startswith(PARQUET):
            raise BadFile("is a packed Parquet file; unpack it: Parquet packs its columns by itself")
        if is_packed(start):
            raise BadFile("is packed twice; unpack it once")
    text = as_utf8(file, start)
    if text is file:
        check_readable(start)
    yield from _rows_of_text(unpacked_name(name), text)


def _rows_of_text(name: str, file: io.BufferedReader) -> Iterator[Any]:
    """`name` is that of the unpacked file. A file without a suffix is JSON or CSV as its first character tells: a row
    of JSON is an object, and no sane header begins like one."""
    start = file.peek(LONGEST).lstrip()
    is_json = start.startswith((b"{", b"["))
    named_csv = name.endswith(".csv")
    if named_csv and is_json:
        raise BadFile("is named .csv, and begins as JSON does; name it .jsonl, or name its first column otherwise")
    if name.endswith(_TEXT) and not _ROWS_OF_JSON.match(start):
        return text_rows(file)
    return csv_rows(_lines(file)) if named_csv or not (is_json or "." in name) else json_rows(_lines(file))


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
