"""The rows of JSON Lines, or of one JSON array."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from dataset.fields import parse_json
from dataset.limits import LARGEST_ARRAY, LONGEST_ROW
from dataset.reading.encoding import wrong_byte
from dataset.reading.json_layout import problem_of_layout
from dataset.refusal import BadFile, BadRow

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


def json_rows(lines: Iterator[bytes]) -> Iterator[Any]:
    """An empty line is no row. A line that makes no sense is a BadRow in its place, and the next one is read; in an
    array nothing can be read after one. Raises BadRow of the row that is next, BadFile."""
    first = _next(lines)
    if first.lstrip().startswith(b"["):
        yield from _array_rows(_whole(first, lines))
        return
    if first and len(first) <= LONGEST_ROW:
        second = _next(lines)
        _check_layout(first, second)
        lines = itertools.chain([first, second], lines)
    else:
        lines = itertools.chain([first], lines)
    for line in lines:
        if not line.strip():
            continue
        if len(line) > LONGEST_ROW:
            is_whole = line.endswith(b"\n")
            del line
            yield BadRow(f"is longer than {LONGEST_ROW >> 20} MiB; split or shorten it")
            while not is_whole:  # the rest of it comes in pieces
                is_whole = next(lines, b"\n").endswith(b"\n")
            continue
        yield _row(line)


def _next(lines: Iterator[bytes]) -> bytes:
    """The next that is not blank; empty at the end."""
    return next((line for line in lines if line.strip()), b"")


def _row(line: bytes) -> Any:
    try:
        return parse_json(_decoder.decode, decode(line))
    except BadRow as fault:
        return fault


def _check_layout(first: bytes, second: bytes) -> None:
    fault = _row(first)
    if isinstance(fault, BadRow) and isinstance(fault.__cause__, json.JSONDecodeError):
        problem = problem_of_layout(fault.__cause__.doc, second[:1], fault.__cause__)
        if problem is not None:
            raise BadFile(problem)


def decode(line: bytes, encoding: str = "utf-8-sig") -> str:
    """Without the byte order mark that a line has where files were put together."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRow(wrong_byte(error)) from error


def _whole(first: bytes, lines: Iterator[bytes]) -> str:
    text = bytearray(first)
    for line in lines:
        text += line
        if len(text) > LARGEST_ARRAY:
            raise BadFile(
                f"is one JSON array of more than {LARGEST_ARRAY >> 20} MiB, which would be held whole; write it as "
                "JSON Lines, one row on each line"
            )
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadFile(wrong_byte(error)) from error


def _array_rows(text: str) -> Iterator[Any]:
    """Row by row: other threads run in between, and a row that is no JSON has its number."""
    position = _after_space(text, text.index("[") + 1)
    ended = text.startswith("]", position)
    while not ended:
        row, position = parse_json(_decoder.raw_decode, text, position)
        position = _after_space(text, position)
        ended = text.startswith("]", position)
        if not ended:
            if not text.startswith(",", position):
                raise BadRow("is followed by neither a comma nor the end of the array")
            position = _after_space(text, position + 1)
        yield row
    if _after_space(text, position + 1) != len(text):
        raise BadFile("goes on after the end of its array")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position
