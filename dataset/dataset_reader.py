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
from dataset.example import Example, PlainText, Unrated, rating_of, with_place
from dataset.fields import Row
from dataset.formats.aliases import find_aliases
from dataset.formats.columns import ColumnRenaming, check_columns
from dataset.formats.detect import FORMATS, detect
from dataset.formats.kinds import PAIR_FIELDS, as_kind, check_kind, is_decided, kind_of, refuse_pair
from dataset.formats.known_fields import apply_extra_fields, check_row, refuse_fields
from dataset.formats.preference import PAIR_NAMES, has_pair, require_pair
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
        self.learned = file.learned
        """What the rows have; if the file does not say it, None until the first row that can be read."""
        self._wanted = file.learned
        self._ratings: set[bool | None] = set()
        of_pairs = PAIR_NAMES if file.format == "preference" and not file.columns else {}
        self._renaming = ColumnRenaming(file.columns or {}, of_pairs)
        self._raw = read_rows(file.path, file.name, max_bytes, sha256)

    @property
    def columns(self) -> Mapping[DatasetField, str]:
        """The column read as each field so far, where the two names differ."""
        return self._renaming.columns

    def rows(self) -> Iterator[ReadRow]:
        """Raises BadFile. After a bad row, that means that nothing behind it can be read."""
        if self.format != "auto":
            check_columns(self.format, self._renaming.columns)
            check_kind(self.format, self._wanted)
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
        self._check_ratings()

    def _check_ratings(self) -> None:
        if self._wanted == "ratings" and len(self._ratings) == 1:
            found, missing = ("good", "bad") if True in self._ratings else ("bad", "good")
            raise BadFile(
                f'has only answers rated as {found}; method "kto" learns from both, so add some that are rated as '
                f"{missing}"
            )

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
        refuse_fields(row)
        if self.format == "auto":
            row = self._detect(given, row)
        assert self.format != "auto"
        if self.format != "preference":
            self._refuse_pair(row)
        format = FORMATS[self.format]
        if self.format == "preference":
            row = format.unpack(row)
            refuse_fields(row)
        check_row(self.format, format.fields, row)
        read = format.read(row)
        unrated = [read] if isinstance(read, Unrated) else read
        examples = [apply_extra_fields(self.format, row, each) for each in unrated]
        learned = self.learned or kind_of(self.format, row)
        placed = [
            with_place(each, ", ".join(filter(None, (f"row {number}", each.where))))
            for each in as_kind(learned, self.format, row, examples)
        ]
        self.learned = learned
        if learned == "ratings":
            self._ratings |= {rating_of(each) for each in placed}
        return placed, row

    def _refuse_pair(self, row: Row) -> None:
        if not row.keys().isdisjoint(PAIR_FIELDS) and not is_decided(self._renaming.columns):
            refuse_pair(row, self._wanted)

    def _detect(self, given: Row, row: Row) -> Row:
        """Settles the format and the columns by the first row. Returns its columns under our field names."""
        takes_pairs = self._wanted in ("pairs", None) and not is_decided(self._renaming.columns)
        if self._wanted == "pairs":
            require_pair(row)
        elif not (takes_pairs and has_pair(row)):
            self._refuse_pair(row)
        aliases = None if self._renaming.columns else find_aliases(row)
        if aliases is not None:
            self._renaming = ColumnRenaming(aliases.columns, aliases.optional)
            row = self._renaming.apply(given)
        self.format = detect(row, self._renaming.columns, takes_pairs)
        check_columns(self.format, self._renaming.columns)
        return row

    def _piece(self, number: int, given: PlainText) -> Example:
        """A piece of a plain text file."""
        if self._renaming.columns:
            raise BadFile("is plain text by its name, and has no columns", "dataset.columns")
        if self.format not in ("auto", "text"):
            raise BadFile(f"is plain text by its name, not {self.format}; name a file of JSON rows .jsonl")
        self.format = "text"
        check_kind(self.format, self._wanted)
        self.learned = "answers"
        return replace(given, where=f"row {number}")


def dataset_invalid(message: str, param: str = "dataset") -> InputError:
    return InputError(FailureCode.DATASET_INVALID, message, param)
