"""Reads a file of examples, row by row. docs/data.md shows a row of each format."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from contract.failure import FailureCode, InputError
from contract.recipe import DatasetField, DatasetFormat
from dataset.example import Example, PlainText
from dataset.fields import Row
from dataset.formats.aliases import find_aliases
from dataset.formats.columns import Renaming, check_columns
from dataset.formats.detect import FORMATS, detect
from dataset.formats.known_fields import check_row, complete, refuse_fields
from dataset.reading.files import Hash, read_rows
from dataset.refusal import BadFile, BadRow


def digest(path: Path) -> str:
    """sha256 of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_examples(
    path: Path,
    format: DatasetFormat | Literal["auto"] = "auto",
    columns: Mapping[DatasetField, str] | None = None,
    *,
    largest: int | None = None,
    sha256: Hash | None = None,
    name: str | None = None,
) -> Iterator[Example]:
    """The examples of a file, in its order; each has something to learn.

    `columns` maps our names of fields to the file's names of columns. `sha256` is updated with every byte of the file:
    after the last example it has the file's digest. `name` is what people call the file, where its path has another
    name. Raises InputError, which names the row, counted from 1: no rows, a
    row that is not of the format, a column that no row has, a file of more than `largest` bytes, packed or unpacked.
    """
    try:
        for each in Reading(path, name or path.name, format, columns or {}, largest, sha256).rows():
            if isinstance(each.read, BadRow):
                raise refusal(f"row {each.number}: {each.read}")
            yield from each.read
    except BadFile as error:
        raise refusal(f"the file {error}", error.param) from error


class Counted(BaseModel):
    """What a recipe is told by of a file whose rows can all be learned."""

    examples: int
    sha256: str


def count_examples(
    path: Path,
    name: str,
    format: DatasetFormat | Literal["auto"],
    columns: Mapping[DatasetField, str] | None,
    largest: int | None,
) -> Counted:
    """Raises InputError, as read_examples does."""
    # Of the very bytes that are checked: the file may change meanwhile.
    sha256 = hashlib.sha256()
    examples = sum(1 for _ in read_examples(path, format, columns, largest=largest, sha256=sha256, name=name))
    return Counted(examples=examples, sha256=sha256.hexdigest())


@dataclass(frozen=True)
class ReadRow:
    number: int
    """From 1."""
    read: list[Example] | BadRow
    row: Row = field(default_factory=dict)
    """Its columns by our names; empty for a bad one."""


class Reading:
    """One pass over a file, which goes on after a bad row where the kind of file lets it."""

    def __init__(
        self,
        path: Path,
        name: str,
        format: DatasetFormat | Literal["auto"],
        columns: Mapping[DatasetField, str],
        largest: int | None,
        sha256: Hash | None = None,
    ) -> None:
        """`name` is what people call the file, by which CSV is known; see read_examples for the others."""
        self.format = format
        """Told by the first row that has the shape of one."""
        self._renaming = Renaming(columns)
        self._raw = read_rows(path, name, largest, sha256)

    @property
    def columns(self) -> Mapping[DatasetField, str]:
        """What the columns of the rows so far have become, but for those that have the field's name."""
        return self._renaming.columns

    def rows(self) -> Iterator[ReadRow]:
        """Raises BadFile: where it is raised after a bad row, nothing can be read after that one."""
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
                yield ReadRow(number, self._renaming.explained(error))
            else:
                yield ReadRow(number, examples, row)
        if number == 0:
            raise BadFile("has no rows; give one at least")
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
        """Its examples, and its columns by our names."""
        if isinstance(given, PlainText):
            return [self._piece(number, given)], {}
        row = self._renaming.apply(given)
        refuse_fields(row, self._renaming.columns.values())
        if self.format == "auto":
            aliases = None if self._renaming.columns else find_aliases(row)
            if aliases is not None:
                self._renaming = Renaming(aliases.columns, aliases.optional)
                row = self._renaming.apply(given)
            self.format = detect(row, self._renaming.columns)
            check_columns(self.format, self._renaming.columns)
        format = FORMATS[self.format]
        check_row(self.format, format.fields, row)
        read = format.read(row)
        examples = [
            replace(
                complete(self.format, row, example),
                where=", ".join(filter(None, (f"row {number}", example.where))),
            )
            for example in ([read] if isinstance(read, Example) else read)
        ]
        return examples, row

    def _piece(self, number: int, given: PlainText) -> Example:
        """Of a file of plain text."""
        if self._renaming.columns:
            raise BadFile("is plain text by its name, and has no columns", "dataset.columns")
        if self.format not in ("auto", "text"):
            raise BadFile(f"is plain text by its name, and no file of {self.format}; rows of JSON are named .jsonl")
        self.format = "text"
        return replace(given, where=f"row {number}")


def refusal(message: str, param: str = "dataset") -> InputError:
    return InputError(FailureCode.DATASET_INVALID, message, param)
