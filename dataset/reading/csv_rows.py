"""The rows of a CSV file (RFC 4180): commas, double quotes, and a header that names the columns."""

import csv
from collections import Counter
from collections.abc import Iterator

from contract.quote import cut, quote
from dataset.limits import LONGEST_ROW
from dataset.reading.json_rows import decode
from dataset.refusal import BadFile, BadRow

# Of the whole process, where 128 KiB is the default: what is too long is refused by _Text, with its row.
csv.field_size_limit(2 * LONGEST_ROW)


def csv_rows(lines: Iterator[bytes]) -> Iterator[dict[str, str] | BadRow]:
    """A record may go over many lines, and an empty line is none. One with too few cells or too many is a BadRow in its
    place, and the next one is read. Raises BadRow of the record that is next, after which nobody knows where one
    begins; BadFile."""
    text = _Text(lines)
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


class _Text:
    """The lines as text, as long as one record takes no more of them than a row may."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.bytes_of_record = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.bytes_of_record += len(line)
            if self.bytes_of_record > LONGEST_ROW:
                raise BadRow(f"is longer than {LONGEST_ROW >> 20} MiB; is a quote left open?")
            # A byte order mark further on is a cell's.
            yield decode(line, "utf-8")


def _advice(problem: str) -> str:
    if problem.startswith("new-line character"):
        return "; if lines end in CR alone, end them in LF, as tr '\\r' '\\n' does"
    return "; write a quote within quotes twice, and quotes around the whole cell" if '"' in problem else ""


def _header(given: list[str]) -> list[str]:
    names = [name.strip() for name in given]
    if names[0].startswith("sep="):
        raise BadFile(f"begins with {quote(names[0])}, a line for Excel; remove it, and separate cells with commas")
    other = next((each for each in (";", "\t", "|") if len(names) == 1 and each in names[0]), None)
    if other is not None:
        raise BadFile(f"has cells that are separated by {quote(other)}; write it with commas")
    if names.count("") > 1:
        raise BadFile("has more than one column without a name; name them, or remove the commas that end each line")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadFile(f"has more than one column {quote(cut(twice[0], 40))}")
    return names
