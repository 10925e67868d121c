"""The archive of a backup: a tar that is written and read in one pass, so it may go through a pipe.

It begins with backup.json, which says what it is, and ends with manifest.json: the digests of the members that count,
and the tables. An archive without a manifest is torn. It is not compressed: weights hardly shrink.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)

FORMAT = 1
HEADER, MANIFEST = "backup.json", "manifest.json"
_BUFFER = 1 << 20


class BackupError(Exception):
    """A backup cannot be made or restored. The message is for the operator."""


class Header(BaseModel):
    format: int = FORMAT
    revision: str
    """The database's revision."""
    created_at: str


class Table(BaseModel):
    name: str
    columns: list[str]
    rows: int
    parts: list[str]
    """The members with its rows, in the order of COPY."""


class Manifest(BaseModel):
    tables: list[Table]
    """In an order in which foreign keys allow to insert their rows."""
    digests: dict[str, str]
    """SHA-256 of each member that counts. The others were deleted from the service while the backup was made."""

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)

    @property
    def files(self) -> int:
        return len(self.digests) - sum(len(table.parts) for table in self.tables)


class _Chunks:
    """Chunks of bytes as a file, which digests what is read of it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._ahead = b""
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        parts, missing = [], size
        while missing > 0 and (chunk := self._ahead or next(self._chunks, b"")):
            parts.append(chunk[:missing])
            self._ahead = chunk[missing:]
            missing -= len(parts[-1])
        piece = b"".join(parts)
        self.digest.update(piece)
        return piece


class ArchiveWriter:
    def __init__(self, stream: IO[bytes], header: Header) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w|", bufsize=_BUFFER, format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._tar.copybufsize = _BUFFER  # type: ignore[attr-defined]  # the types lack this parameter of TarFile
        self.digests: dict[str, str] = {}
        self.bytes = 0
        self._add_model(HEADER, header)

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> str:
        """Adds a member of `size` bytes; returns its SHA-256. Raises OSError if there are fewer bytes."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        content = _Chunks(chunks)
        self._tar.addfile(info, content)  # type: ignore[arg-type]  # tarfile always gives a size
        self.digests[name] = content.digest.hexdigest()
        self.bytes += size
        return self.digests[name]

    def close(self, manifest: Manifest) -> None:
        self._add_model(MANIFEST, manifest)
        self._tar.close()

    def _add_model(self, name: str, model: BaseModel) -> None:
        """As JSON, with its own digest in the line before."""
        content = model.model_dump_json().encode()
        content = hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        self.add(name, len(content), [content])
        del self.digests[name]


class ArchiveReader:
    """The members of a backup, in one pass from its beginning to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Raises BackupError for a file that is no backup."""
        with _reading():
            self._tar = tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER)  # noqa: SIM115
            name, content = next(self._members(), ("", None))
        if name != HEADER or content is None:
            raise BackupError("it is not a backup of finetuned")
        self.header = parsed(Header, content)
        if self.header.format != FORMAT:
            raise BackupError(f"its format is {self.header.format}, and this version reads {FORMAT}")

    def members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Name and chunks of each member, the manifest last. Raises BackupError where the archive is damaged."""
        with _reading():
            yield from self._members()

    def _members(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        while (info := self._tar.next()) is not None:
            content = self._tar.extractfile(info)
            if content is None or info.name.startswith("/") or ".." in info.name.split("/"):
                raise BackupError(f"it has a member {info.name!r}, which no backup has")
            yield info.name, _chunks(content)


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    with _reading():
        yield from iter(partial(content.read, _BUFFER), b"")


def parsed(model: type[Model], chunks: Iterable[bytes]) -> Model:
    """The content of the header or the manifest. Raises BackupError."""
    digest, _, content = b"".join(chunks).partition(b"\n")
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise BackupError("it is damaged, or not a backup of finetuned")
    return model.model_validate_json(content)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise BackupError(f"it is torn or damaged: {error}") from error
