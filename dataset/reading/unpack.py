"""Unpacks a file while it is read: gzip, bzip2, xz and Zstandard, in bounded memory and up to a maximum size."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from contract.formatting import truncate
from dataset.limits import MAX_XZ_MEMORY
from dataset.refusal import BadFile

_PIECE = 64 << 10
_Read = Callable[[int], bytes]


class _Decompressor(Protocol):
    """bz2.BZ2Decompressor or lzma.LZMADecompressor."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _gzip(file: io.BufferedReader) -> _Read:
    return gzip.GzipFile(fileobj=file).read1


def _bzip2(file: io.BufferedReader) -> _Read:
    return _Streams(file, bz2.BZ2Decompressor).read


def _xz(file: io.BufferedReader) -> _Read:
    # The file itself states how much memory unpacking needs, and lzma.LZMAFile has no limit on that.
    return _Streams(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY)).read


def _zstandard(file: io.BufferedReader) -> _Read:
    # The standard library has it from Python 3.14 on. Arrow refuses a window of more than 128 MiB.
    import pyarrow

    read: _Read = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd").read
    return read


_FORMATS: dict[bytes, tuple[str, Callable[[io.BufferedReader], _Read]]] = {
    b"\x1f\x8b": ("gzip", _gzip),
    b"BZh": ("bzip2", _bzip2),
    b"\xfd7zXZ\0": ("xz", _xz),
    b"\x28\xb5\x2f\xfd": ("zstd", _zstandard),
    # A skippable frame, with which pzstd begins a file.
    **{bytes([kind]) + b"\x2a\x4d\x18": ("zstd", _zstandard) for kind in range(0x50, 0x60)},
}
_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zstd")


def is_packed(start: bytes) -> bool:
    return start.startswith(tuple(_FORMATS))


def unpacked_name(name: str) -> str:
    """The lower-case name of the file that is packed in `name`."""
    lower = name.lower()
    return next((lower.removesuffix(suffix) for suffix in _SUFFIXES if lower.endswith(suffix)), lower)


def unpacked(file: io.BufferedReader, start: bytes, max_bytes: int | None) -> io.BufferedReader:
    """The unpacked bytes of a file that begins with `start`. Reading raises BadFile after `max_bytes` bytes, and if the
    file is damaged."""
    kind, opened = next(found for magic, found in _FORMATS.items() if start.startswith(magic))
    return io.BufferedReader(_Unpacked(kind, opened(file), max_bytes), _PIECE)


class _Unpacked(io.RawIOBase):
    def __init__(self, kind: str, read: _Read, max_bytes: int | None) -> None:
        self._kind = kind
        self._read = read
        self._largest = max_bytes
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            piece = self._read(len(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            # An error with a number is the disk's.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadFile(f"is not a complete {self._kind} file: {truncate(str(error), 200)}") from error
        self._size += len(piece)
        if self._largest is not None and self._size > self._largest:
            raise BadFile(f"unpacks to more than {self._largest} bytes, the most that the service takes; split it")
        buffer[: len(piece)] = piece
        return len(piece)


class _Streams:
    """The content of consecutive compressed streams, as pbzip2, pixz and `cat` write them."""

    def __init__(self, file: io.BufferedReader, make: Callable[[], _Decompressor]) -> None:
        self._file = file
        self._make = make
        self._stream = make()

    def read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._stream.eof:
                # xz pads with zeros between streams.
                data = self._stream.unused_data.lstrip(b"\0")
                while not data and (piece := self._file.read(_PIECE)):
                    data = piece.lstrip(b"\0")
                if not data:
                    return b""
                self._stream = self._make()
            elif self._stream.needs_input and not (data := self._file.read(_PIECE)):
                raise EOFError("it ends before its end-of-stream marker")
            if piece := self._stream.decompress(data, size):
                return piece
