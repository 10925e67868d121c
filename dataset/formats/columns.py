"""The recipe's dataset.columns: the file's own names for the fields of a format."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from contract.dataset_format import DatasetField, DatasetFormat
from contract.formatting import format_value, truncate
from dataset.fields import Row, list_names
from dataset.formats.detect import FORMATS
from dataset.refusal import BadFile, BadRow


def check_columns(format: DatasetFormat, columns: Mapping[DatasetField, str]) -> None:
    """Raises BadFile for a field that the format does not read."""
    known = FORMATS[format].fields
    for name in columns:
        if name not in known:
            raise BadFile(
                f'is read as {format}, which has no field "{truncate(name)}" for dataset.columns to fill; '
                f"it has {', '.join(sorted(known))}",
                "dataset.columns",
            )


class ColumnRenaming:
    """Renames a file's columns to our fields, and tracks columns that no row has had so far."""

    def __init__(
        self, columns: Mapping[DatasetField, str], optional: Mapping[str, DatasetField] = MappingProxyType({})
    ) -> None:
        """`optional` are columns that rows may have instead of the field itself, with that field."""
        self.columns = dict(columns)
        """The column read as each field so far."""
        self._optional = optional
        self._unseen = set(columns.values())
        self._first: Row = {}

    def apply(self, row: Any) -> Row:
        """The row under our field names. A column that already has a field's name stays, unless it is mapped to another
        field. Raises BadRow for a value that is not an object."""
        if not isinstance(row, dict):
            raise BadRow(f"must be a JSON object, not {format_value(row)}")
        for column, name in self._optional.items():
            if row.get(column):
                if row.get(name):
                    raise BadRow(f"has both {name} and {column}, which is read as {name}; give one of them")
                if (other := self.columns.setdefault(name, column)) != column:
                    raise BadRow(f"has {column}, and a row before has {other} as its {name}; use one name in all rows")
        if not self.columns:
            return row
        self._first = self._first or row
        self._unseen -= row.keys()
        taken = set(self.columns.values())
        kept = {name: value for name, value in row.items() if name not in taken}
        return kept | {name: row[column] for name, column in self.columns.items() if column in row}

    def explain(self, error: BadRow) -> BadRow:
        """The error with the columns of the fields that it names."""
        names = (
            f"; {field} is the column {truncate(column, 40)}"
            for field, column in self.columns.items()
            if field != column and re.match(rf"(has no answer: )?{field}\b", str(error))
        )
        return type(error)(f"{error}{''.join(names)}")

    def check_seen(self, rows: int) -> None:
        """Raises BadFile if none of the first `rows` rows had one of the columns."""
        for name, column in self.columns.items():
            if column in self._unseen:
                raise BadFile(
                    f'has no column "{truncate(column, 40)}" in rows 1 to {rows}, which dataset.columns gives for '
                    f"{truncate(name, 40)}; the first row has {list_names(self._first)}",
                    "dataset.columns",
                )
