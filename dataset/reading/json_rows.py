"""The rows of JSON Lines, or of one JSON array."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from contract.json_objects import unique_object
from dataset.fields import parse_json
from dataset.limits import MAX_ARRAY_BYTES, MAX_ROW_BYTES
from dataset.reading.encoding import describe_decode_error
from dataset.reading.json_layout import layout_problem
from dataset.refusal import BadFile, BadRow

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder(object_pairs_hook=unique_object)


def json_rows(lines: Iterator[bytes]) -> Iterator[Any]:
    """Yields the rows and skips empty lines. A line that is not JSON is yielded as a BadRow, and the next one is read;
    in an array nothing can be read after a fault. Raises BadRow for the next row, and BadFile."""
    first = _next(lines)
    if first.lstrip().startswith(b"["):
        yield from _array_rows(_whole(first, lines))
        return
    if first and len(first) <= MAX_ROW_BYTES:
        second = _next(lines)
        _check_layout(first, second)
        lines = itertools.chain([first, second], lines)
    else:
        lines = itertools.chain([first], lines)
    for line in lines:
        if not line.strip():
            continue
        if len(line) > MAX_ROW_BYTES:
            is_whole = line.endswith(b"\n")
            del line
            yield BadRow(f"is longer than {MAX_ROW_BYTES >> 20} MiB; split or shorten it")
            while not is_whole:  # the rest of the line comes in pieces
                is_whole = next(lines, b"\n").endswith(b"\n")
            continue
        yield _row(line)


def _next(lines: Iterator[bytes]) -> bytes:
    """The next non-blank line; empty at the end."""
    return next((line for line in lines if line.strip()), b"")


def _row(line: bytes) -> Any:
    try:
        return parse_json(_decoder.decode, decode(line))
    except BadRow as fault:
        return fault


def _check_layout(first: bytes, second: bytes) -> None:
    fault = _row(first)
    if isinstance(fault, BadRow) and isinstance(fault.__cause__, json.JSONDecodeError):
        problem = layout_problem(fault.__cause__.doc, second[:1], fault.__cause__)
        if problem is not None:
            raise BadFile(problem)


def decode(line: bytes, encoding: str = "utf-8-sig") -> str:
    """Without the byte order mark that a line has if files were concatenated."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRow(describe_decode_error(error)) from error


def _whole(first: bytes, lines: Iterator[bytes]) -> str:
    text = bytearray(first)
    for line in lines:
        text += line
        if len(text) > MAX_ARRAY_BYTES:
            raise BadFile(
                f"is one JSON array of more than {MAX_ARRAY_BYTES >> 20} MiB, which would be held whole; write it as "
                "JSON Lines, one row on each line"
            )
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadFile(describe_decode_error(error)) from error


def _array_rows(text: str) -> Iterator[Any]:
    """Decodes row by row, so that other threads run in between and a bad row has a number."""
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
