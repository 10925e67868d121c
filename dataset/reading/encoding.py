"""The encodings of a text file: UTF-8, and UTF-16 and UTF-32, which are read as UTF-8."""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

from dataset.refusal import BadFile

_PIECE = 64 << 10
_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def as_utf8(file: io.BufferedReader, start: bytes) -> io.BufferedReader:
    """The file, whose first bytes are `start`, in UTF-8 without a byte order mark. Reading raises BadFile, as decoded
    does."""
    encoding = json.detect_encoding(start[:4])
    if start.startswith(codecs.BOM_UTF8):
        file.read(len(codecs.BOM_UTF8))
    if encoding.startswith("utf-8") or not (start.startswith(_MARKS) or _begins_with_text(start, encoding)):
        return file
    return io.BufferedReader(_Recoded(decoded(file, encoding)), _PIECE)


def decoded(file: io.BufferedReader, encoding: str) -> Iterator[str]:
    """The text of a file, in pieces. Raises BadFile for bytes that are not of the encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    size, piece = 0, b"?"
    while piece:
        piece = file.read(_PIECE)
        size += len(piece)
        try:
            text = decoder.decode(piece, final=not piece)
        except UnicodeDecodeError as error:
            raise BadFile(wrong_byte(error, size - len(error.object))) from error
        if text:
            yield text


def wrong_byte(error: UnicodeDecodeError, offset: int = 0) -> str:
    """The problem, in words that go on after "the file " or "row 3: "; `offset` is where the decoded bytes begin."""
    return (
        f"is not {error.encoding.upper()}: byte 0x{error.object[error.start]:02x} at position {offset + error.start}, "
        f"{error.reason}; convert it to UTF-8, as iconv -f WINDOWS-1252 -t UTF-8 FILE does for a file in Windows-1252"
    )


def _begins_with_text(start: bytes, encoding: str) -> bool:
    """Without a byte order mark the zeros among the first bytes tell the encoding; a binary file has zeros too."""
    first = start[:4].decode(encoding, errors="replace")[:1]
    return first.isascii() and (first.isprintable() or first.isspace())


class _Recoded(io.RawIOBase):
    """Text as a file in UTF-8."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._ready = self._ready or memoryview(next(self._text, "").encode())
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
