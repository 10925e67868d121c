"""Reads a file of examples, row by row. docs/data.md shows a row of each format."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from contract.failure import FailureReason, InputError
from contract.recipe import DatasetField, DatasetFormat
from dataset.columns import Renaming, check_columns
from dataset.detect import FORMATS, detect
from dataset.example import Example
from dataset.files import Hash, read_rows
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
) -> Iterator[Example]:
    """The examples of a file, in its order; each has something to learn.

    `columns` maps our names of fields to the file's names of columns. `sha256` is updated with every byte of the file:
    after the last example it has the file's digest. Raises InputError, which names the row, counted from 1: no rows, a
    row that is not of the format, a column that no row has, a file of more than `largest` bytes, packed or unpacked.
    """
    renaming = Renaming(columns or {})
    rows = 0
    try:
        if format != "auto":
            check_columns(format, renaming.columns)
        for rows, given in _numbered(read_rows(path, largest, sha256)):
            try:
                row = renaming.apply(given)
                if format == "auto":
                    format = detect(row, renaming.columns)
                    check_columns(format, renaming.columns)
                read = FORMATS[format].read(row)
            except BadRow as error:
                renaming.check_seen(rows)
                raise _refusal(f"row {rows}: {error}") from error
            for example in [read] if isinstance(read, Example) else read:
                yield replace(example, where=", ".join(filter(None, (f"row {rows}", example.where))))
        if rows == 0:
            raise BadFile("has no rows; give one at least")
        renaming.check_seen(rows)
    except BadFile as error:
        raise _refusal(f"the file {error}", error.param) from error


def _numbered(rows: Iterator[Any]) -> Iterator[tuple[int, Any]]:
    number = 1
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except BadRow as error:
            raise _refusal(f"row {number}: {error}") from error
        yield number, row
        number += 1


def _refusal(message: str, param: str = "dataset") -> InputError:
    return InputError(FailureReason.DATASET_INVALID, message, param)
