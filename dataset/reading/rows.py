"""From the bytes of a file to its rows: JSON Lines, one JSON array, CSV and plain text, each packed or not, and
Parquet.

No row is held twice, nothing is unpacked or decoded beyond its limit, and the hash covers exactly the bytes read.
"""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from contract.formatting import truncate
from dataset.limits import MAX_ROW_BYTES
from dataset.reading.csv_rows import csv_rows
from dataset.reading.encoding import as_utf8
from dataset.reading.json_rows import json_rows
from dataset.reading.parquet_rows import parquet_rows
from dataset.reading.signatures import SIGNATURE_BYTES, check_readable
from dataset.reading.text_rows import text_rows
from dataset.reading.unpack import is_packed, unpacked, unpacked_name
from dataset.refusal import BadFile

PARQUET = b"PAR1"
_TEXT = (".txt", ".md")
_LIGHT_BYTES = 8 << 20
"""Files up to this size are read faster than a process starts."""
_ROWS_OF_JSON = re.compile(rb"(\[\s*)?\{\s*[\"}]")
"""The beginning of JSON rows; a plain text may begin with a bracket too."""


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def read_rows(path: Path, name: str, max_bytes: int | None, sha256: Hash | None) -> Iterator[Any]:
    """Yields the rows. A row that cannot be read is yielded as a BadRow if those after it can be. CSV and plain text
    are recognised by `name`, the owner's name of the file; the others by their first bytes. Pieces of plain text are
    PlainText, and all other rows are JSON values. Raises BadFile and BadRow."""
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            if max_bytes is not None and before.st_size > max_bytes:
                raise BadFile(
                    f"has {before.st_size} bytes, and the service takes none larger than {max_bytes} bytes; split it"
                )
            if os.pread(file.fileno(), len(PARQUET), 0) == PARQUET:
                _hash_whole(file, sha256)
                yield from parquet_rows(file, max_bytes)
                if _changed(before, os.fstat(file.fileno())):
                    raise BadFile(f"{truncate(name)} changed while it was read; submit it when it is whole")
            else:
                yield from _rows_of(name, io.BufferedReader(_Hashing(file, sha256), 1 << 20), max_bytes)
    except OSError as error:
        raise BadFile(f"{truncate(name)} cannot be read: {error.strerror}") from error


def is_light(path: Path) -> bool:
    """True if the file is small and neither packed nor Parquet, so that reading it takes little time and memory. Also
    true for a file that cannot be read: reading its rows reports why."""
    try:
        with path.open("rb", buffering=0) as file:
            start = file.read(SIGNATURE_BYTES)
            return os.fstat(file.fileno()).st_size <= _LIGHT_BYTES and not (
                start.startswith(PARQUET) or is_packed(start)
            )
    except OSError:
        return True


def _rows_of(name: str, file: io.BufferedReader, max_bytes: int | None) -> Iterator[Any]:
    start = file.peek(SIGNATURE_BYTES)[:SIGNATURE_BYTES]
    if is_packed(start):
        file = unpacked(file, start, max_bytes)
        start = file.peek(SIGNATURE_BYTES)[:SIGNATURE_BYTES]
        if start.startswith(PARQUET):
            raise BadFile("is a packed Parquet file; unpack it: Parquet packs its columns by itself")
        if is_packed(start):
            raise BadFile("is packed twice; unpack it once")
    text = as_utf8(file, start)
    if text is file:
        check_readable(start)
    yield from _rows_of_text(unpacked_name(name), text)


def _rows_of_text(name: str, file: io.BufferedReader) -> Iterator[Any]:
    """`name` is that of the unpacked file. Without a suffix, the first character decides between JSON and CSV: a JSON
    row is an object, and no sane CSV header begins like one."""
    start = file.peek(SIGNATURE_BYTES).lstrip()
    is_json = start.startswith((b"{", b"["))
    named_csv = name.endswith(".csv")
    if named_csv and is_json:
        raise BadFile("is named .csv, and begins as JSON does; name it .jsonl, or name its first column otherwise")
    if name.endswith(_TEXT) and not _ROWS_OF_JSON.match(start):
        return text_rows(file)
    return csv_rows(_lines(file)) if named_csv or not (is_json or "." in name) else json_rows(_lines(file))


class _Hashing(io.RawIOBase):
    """A file that hashes what is read from it."""

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
    """Parquet is read from its end, so it is hashed first."""
    while sha256 is not None and (piece := file.read(1 << 20)):
        sha256.update(piece)
    file.seek(0)


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _lines(file: io.BufferedIOBase) -> Iterator[bytes]:
    """The lines of a file. A line longer than a row may be comes in pieces of more than MAX_ROW_BYTES bytes."""
    while line := file.readline(MAX_ROW_BYTES + 1):
        yield line
