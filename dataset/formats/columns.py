"""The recipe's dataset.columns: a file's own names for what a format reads."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from contract.quote import cut, quote
from contract.recipe import DatasetField, DatasetFormat
from dataset.fields import Row, names_of
from dataset.formats.detect import FORMATS
from dataset.refusal import BadFile, BadRow


def check_columns(format: DatasetFormat, columns: Mapping[DatasetField, str]) -> None:
    """Raises BadFile for a field that the format does not read."""
    known = FORMATS[format].fields
    for name in columns:
        if name not in known:
            raise BadFile(
                f'is read as {format}, which has no field "{cut(name)}" for dataset.columns to fill; '
                f"it has {', '.join(sorted(known))}",
                "dataset.columns",
            )


class Renaming:
    """Gives the columns of a file our names, and knows which of them no row has had so far."""

    def __init__(
        self, columns: Mapping[DatasetField, str], optional: Mapping[DatasetField, str] = MappingProxyType({})
    ) -> None:
        """`optional` are those that rows may have instead of the field itself."""
        self.columns = dict(columns)
        """What the columns of the rows so far have become."""
        self._optional = optional
        self._unseen = set(columns.values())
        self._first: Row = {}

    def apply(self, row: Any) -> Row:
        """A column that has a field's name, and is given for no other, stays. Raises BadRow for what is no object."""
        if not isinstance(row, dict):
            raise BadRow(f"must be a JSON object, not {quote(row)}")
        for name, column in self._optional.items():
            if row.get(column):
                if row.get(name):
                    raise BadRow(f"has both {name} and {column}, which is read as {name}; give one of them")
                self.columns[name] = column
        if not self.columns:
            return row
        self._first = self._first or row
        self._unseen -= row.keys()
        taken = set(self.columns.values())
        kept = {name: value for name, value in row.items() if name not in taken}
        return kept | {name: row[column] for name, column in self.columns.items() if column in row}

    def explained(self, error: BadRow) -> BadRow:
        """With the columns of the fields that it names."""
        names = (
            f"; {field} is the column {cut(column, 40)}"
            for field, column in self.columns.items()
            if field != column and re.match(rf"(has no answer: )?{field}\b", str(error))
        )
        return type(error)(f"{error}{''.join(names)}")

    def check_seen(self, rows: int) -> None:
        """Raises BadFile when none of the first `rows` rows had one of the columns."""
        for name, column in self.columns.items():
            if column in self._unseen:
                raise BadFile(
                    f'has no column "{cut(column, 40)}" in rows 1 to {rows}, which dataset.columns gives for '
                    f"{cut(name, 40)}; the first row has {names_of(self._first)}",
                    "dataset.columns",
                )
