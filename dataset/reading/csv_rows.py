"""The rows of a CSV file (RFC 4180): commas, double quotes, and a header that names the columns."""

import csv
from collections import Counter
from collections.abc import Iterator

from contract.formatting import format_value, truncate
from dataset.limits import MAX_ROW_BYTES
from dataset.reading.json_rows import decode
from dataset.refusal import BadFile, BadRow


def csv_rows(lines: Iterator[bytes]) -> Iterator[dict[str, str] | BadRow]:
    """Yields the records. A record may span lines, and empty lines are skipped. A record with too few or too many cells
    is yielded as a BadRow. Raises BadRow for a record after which no other can be found, and BadFile."""
    # For the whole process, where the default is 128 KiB. _Text refuses a record that is too long.
    csv.field_size_limit(2 * MAX_ROW_BYTES)
    text = _RecordLines(lines)
    records = csv.reader(text, strict=True)
    header: list[str] | None = None
    while True:
        text.bytes_of_record = 0
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            raise BadRow(f"is not CSV: {error}{_advice(str(error))}") from error
        except BadRow as error:
            if header is None:
                raise BadFile(f"has a header that {error}") from error
            raise
        if not record:
            continue
        if header is None:
            header = _header(record)
        elif len(record) != len(header):
            yield BadRow(f"has {len(record)} cells, and the header {len(header)}; quote a cell that holds a comma")
        else:
            yield dict(zip(header, record, strict=True))


class _RecordLines:
    """The lines as text. Refuses a record that exceeds the maximum size of a row."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.bytes_of_record = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.bytes_of_record += len(line)
            if self.bytes_of_record > MAX_ROW_BYTES:
                raise BadRow(f"is longer than {MAX_ROW_BYTES >> 20} MiB; is a quote left open?")
            # A byte order mark further on belongs to a cell.
            yield decode(line, "utf-8")


def _advice(problem: str) -> str:
    if problem.startswith("new-line character"):
        return "; if lines end in CR alone, end them in LF, as tr '\\r' '\\n' does"
    return "; write a quote within quotes twice, and quotes around the whole cell" if '"' in problem else ""


def _header(given: list[str]) -> list[str]:
    names = [name.strip() for name in given]
    if names[0].startswith("sep="):
        raise BadFile(
            f"begins with {format_value(names[0])}, a line for Excel; remove it, and separate cells with commas"
        )
    other = next((each for each in (";", "\t", "|") if len(names) == 1 and each in names[0]), None)
    if other is not None:
        raise BadFile(f"has cells that are separated by {format_value(other)}; write it with commas")
    if names.count("") > 1:
        raise BadFile("has more than one column without a name; name them, or remove the commas that end each line")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadFile(f"has more than one column {format_value(truncate(twice[0], 40))}")
    return names
