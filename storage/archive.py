"""A folder's files as one tar archive that is never written: any range of it can be read, always with the same bytes.

The tar holds the name and size of each file and no times, so the offset of every byte follows from the names and sizes.
It is not compressed: weights hardly shrink.
"""

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

Read = Callable[[str, int, int], Iterator[bytes]]
"""Reads the named file from one offset up to another."""

_SMALL = 1 << 17
"""Bytes; smaller chunks are sent together."""


@dataclass(frozen=True)
class _Piece:
    """A part of the archive from `start` on: a file, or bytes held here."""

    start: int
    size: int
    file: str | None = None
    content: bytes = b""


@dataclass(frozen=True)
class Archive:
    root: str
    """The folder that the files are unpacked into."""
    files: Sequence[tuple[str, int]]
    """Name, with "/" between its folders, and bytes of each file, in the order of the archive."""

    @property
    def size(self) -> int:
        return self._pieces[-1].start + self._pieces[-1].size

    def read(self, start: int, end: int, read: Read) -> Iterator[bytes]:
        """The archive's bytes from `start` up to `end`. Reads no file outside that range, and the first file of the
        range before it yields anything, so that a missing one is noticed in time."""
        return _gather(self._parts(start, end, read))

    def _parts(self, start: int, end: int, read: Read) -> Iterator[bytes]:
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


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def _gather(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, with small chunks joined."""
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
