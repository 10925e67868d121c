"""A folder's files as one .tar.gz that is written nowhere: any part of it can be had, and every time the same bytes.

The tar tells of each file its name and size alone. The gzip around it holds stored blocks (RFC 1951, 3.2.4): weights
hardly compress, and so the place of every byte follows from the names and the sizes.
"""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

Read = Callable[[str, int, int], Iterator[bytes]]
"""The bytes of the file of that name from one offset up to another."""

_STORED = 65_535
"""Bytes that a stored block holds; the last one may hold fewer."""
_BLOCK = 5 + _STORED
_SMALL = 1 << 17
"""Bytes; a chunk that has fewer is sent with others."""
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, an unknown system
_GZIP_TRAILER = 8


@dataclass(frozen=True)
class _Piece:
    """Of the tar, from `start` on: a file, or bytes that are here."""

    start: int
    size: int
    file: str | None = None
    content: bytes = b""


@dataclass(frozen=True)
class Archive:
    root: str
    """The folder that the files are in when it is unpacked."""
    files: Sequence[tuple[str, int]]
    """Name, with "/" between its folders, and bytes of each, in the order of the archive."""

    @cached_property
    def size(self) -> int:
        return len(_GZIP_HEADER) + self._deflated_size + _GZIP_TRAILER

    def read(self, start: int, end: int, checksum: int, read: Read) -> Iterator[bytes]:
        """The archive's bytes from `start` up to `end`; of the files little more is read than lies there, and something
        before the first chunk is given: what is not there is told by then."""
        return _gather(self._parts(start, end, checksum, read))

    def _parts(self, start: int, end: int, checksum: int, read: Read) -> Iterator[bytes]:
        body = len(_GZIP_HEADER)
        tail = body + self._deflated_size
        trailer = checksum.to_bytes(4, "little") + (self._tar_size % 2**32).to_bytes(4, "little")
        yield from _cut(iter([_GZIP_HEADER]), start, end)
        yield from self._deflated(max(0, start - body), min(self._deflated_size, end - body), read)
        yield from _cut(iter([trailer]), max(0, start - tail), end - tail)

    def checksum(self, read: Read) -> int:
        """CRC-32 of the tar, with which the archive ends. Reads every file."""
        checksum = 0
        for chunk in self._tar(0, self._tar_size, read):
            checksum = zlib.crc32(chunk, checksum)
        return checksum

    def _deflated(self, start: int, end: int, read: Read) -> Iterator[bytes]:
        if start >= end:
            return
        first, last = start // _BLOCK, (end - 1) // _BLOCK
        tar = self._tar(first * _STORED, min((last + 1) * _STORED, self._tar_size), read)
        yield from _cut(self._blocks(first * _STORED, tar), start - first * _BLOCK, end - first * _BLOCK)

    def _blocks(self, at: int, tar: Iterator[bytes]) -> Iterator[bytes]:
        """Stored blocks of the tar's bytes from `at` on, where one begins."""
        for chunk in tar:
            view = memoryview(chunk)
            parts: list[bytes | memoryview] = []
            while view:
                if at % _STORED == 0:
                    size = min(_STORED, self._tar_size - at)
                    final = at + size == self._tar_size
                    parts.append(bytes([final]) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little"))
                part = view[: _STORED - at % _STORED]
                parts.append(part)
                at += len(part)
                view = view[len(part) :]
            yield b"".join(parts)

    def _tar(self, start: int, end: int, read: Read) -> Iterator[bytes]:
        for piece in self._pieces:
            low, high = max(start - piece.start, 0), min(end - piece.start, piece.size)
            if low >= high:
                continue
            if piece.file is None:
                yield piece.content[low:high]
            else:
                yield from read(piece.file, low, high)

    @cached_property
    def _pieces(self) -> list[_Piece]:
        pieces = []
        at = 0
        for name, size in self.files:
            header = _header(f"{self.root}/{name}", size)
            padding = bytes(-size % tarfile.BLOCKSIZE)
            pieces += [
                _Piece(at, len(header), content=header),
                _Piece(at + len(header), size, file=name),
                _Piece(at + len(header) + size, len(padding), content=padding),
            ]
            at += len(header) + size + len(padding)
        ending = bytes(2 * tarfile.BLOCKSIZE)
        ending += bytes(-(at + len(ending)) % tarfile.RECORDSIZE)
        return [*pieces, _Piece(at, len(ending), content=ending)]

    @property
    def _tar_size(self) -> int:
        return self._pieces[-1].start + self._pieces[-1].size

    @property
    def _deflated_size(self) -> int:
        return self._tar_size + (_BLOCK - _STORED) * -(-self._tar_size // _STORED)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def _cut(chunks: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    """What lies from `start` up to `end` in the chunks together."""
    at = 0
    for chunk in chunks:
        part = chunk[max(0, start - at) : max(0, end - at)]
        at += len(chunk)
        if part:
            yield part


def _gather(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Small ones together."""
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _SMALL:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
