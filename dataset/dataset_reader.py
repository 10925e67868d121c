"""Reads a file of examples, row by row. docs/data.md shows a row of each format."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from contract.dataset_format import DatasetField
from contract.failure import FailureCode, InputError
from dataset.dataset_file import DatasetFile
from dataset.example import Example, PlainText
from dataset.fields import Row
from dataset.formats.aliases import find_aliases
from dataset.formats.columns import ColumnRenaming, check_columns
from dataset.formats.detect import FORMATS, detect
from dataset.formats.known_fields import apply_extra_fields, check_row, refuse_fields
from dataset.reading.rows import Hash, read_rows
from dataset.refusal import BadFile, BadRow


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_examples(file: DatasetFile, max_bytes: int | None = None, sha256: Hash | None = None) -> Iterator[Example]:
    """The examples of a file in file order; each has something to learn.

    `sha256` is updated with every byte of the file, so after the last example it is the file's digest. Raises
    InputError, which names the row (from 1), for: a file without rows, a row that does not fit the format, a column
    that no row has, and a file of more than `max_bytes` bytes, packed or unpacked.
    """
    try:
        for row in DatasetReader(file, max_bytes, sha256).rows():
            if isinstance(row.read, BadRow):
                raise dataset_invalid(f"row {row.number}: {row.read}")
            yield from row.read
    except BadFile as error:
        raise dataset_invalid(f"the file {error}", error.param) from error


class ExampleCount(BaseModel):
    """The size and digest of a file whose rows can all be learned."""

    examples: int
    sha256: str


def count_examples(file: DatasetFile, max_bytes: int | None) -> ExampleCount:
    # One pass checks and hashes the same bytes, even if the file changes meanwhile.
    sha256 = hashlib.sha256()
    examples = sum(1 for _ in read_examples(file, max_bytes, sha256))
    return ExampleCount(examples=examples, sha256=sha256.hexdigest())


@dataclass(frozen=True)
class ReadRow:
    number: int
    """Position in the file, from 1."""
    read: list[Example] | BadRow
    row: Row = field(default_factory=dict)
    """Its columns under our field names; empty for a bad row."""


class DatasetReader:
    """One pass over a file. It continues after a bad row if the kind of file allows that."""

    def __init__(self, file: DatasetFile, max_bytes: int | None, sha256: Hash | None = None) -> None:
        self.format = file.format
        """The format of the rows; "auto" until the first row that fits one."""
        self._renaming = ColumnRenaming(file.columns or {})
        self._raw = read_rows(file.path, file.name, max_bytes, sha256)

    @property
    def columns(self) -> Mapping[DatasetField, str]:
        """The column read as each field so far, where the two names differ."""
        return self._renaming.columns

    def rows(self) -> Iterator[ReadRow]:
        """Raises BadFile. After a bad row, that means that nothing behind it can be read."""
        if self.format != "auto":
            check_columns(self.format, self._renaming.columns)
        number = 0
        for number, given in self._numbered():
            try:
                if isinstance(given, BadRow):
                    raise given
                examples, row = self._read(number, given)
            except BadRow as error:
                self._renaming.check_seen(number)
                yield ReadRow(number, self._renaming.explain(error))
            else:
                yield ReadRow(number, examples, row)
        if number == 0:
            raise BadFile("has no rows; give at least one")
        self._renaming.check_seen(number)

    def _numbered(self) -> Iterator[tuple[int, Any]]:
        number = 1
        while True:
            try:
                yield number, next(self._raw)
            except StopIteration:
                return
            except BadRow as error:
                yield number, error
                return
            number += 1

    def _read(self, number: int, given: Row | PlainText) -> tuple[list[Example], Row]:
        """The row's examples, and its columns under our field names."""
        if isinstance(given, PlainText):
            return [self._piece(number, given)], {}
        row = self._renaming.apply(given)
        refuse_fields(row, self._renaming.columns.values())
        if self.format == "auto":
            row = self._detect(given, row)
        assert self.format != "auto"
        format = FORMATS[self.format]
        check_row(self.format, format.fields, row)
        read = format.read(row)
        examples = [
            replace(
                apply_extra_fields(self.format, row, example),
                where=", ".join(filter(None, (f"row {number}", example.where))),
            )
            for example in ([read] if isinstance(read, Example) else read)
        ]
        return examples, row

    def _detect(self, given: Row, row: Row) -> Row:
        """Settles the format and the columns by the first row. Returns its columns under our field names."""
        aliases = None if self._renaming.columns else find_aliases(row)
        if aliases is not None:
            self._renaming = ColumnRenaming(aliases.columns, aliases.optional)
            row = self._renaming.apply(given)
        self.format = detect(row, self._renaming.columns)
        check_columns(self.format, self._renaming.columns)
        return row

    def _piece(self, number: int, given: PlainText) -> Example:
        """A piece of a plain text file."""
        if self._renaming.columns:
            raise BadFile("is plain text by its name, and has no columns", "dataset.columns")
        if self.format not in ("auto", "text"):
            raise BadFile(f"is plain text by its name, not {self.format}; name a file of JSON rows .jsonl")
        self.format = "text"
        return replace(given, where=f"row {number}")


def dataset_invalid(message: str, param: str = "dataset") -> InputError:
    return InputError(FailureCode.DATASET_INVALID, message, param)
