"""The rows of JSON Lines, or of one JSON array."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from dataset.fields import parse_json
from dataset.limits import LARGEST_ARRAY, LONGEST_ROW
from dataset.refusal import BadFile, BadRow

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


def json_rows(lines: Iterator[bytes]) -> Iterator[Any]:
    """An empty line is no row. A line that makes no sense is a BadRow in its place, and the next one is read; in an
    array nothing can be read after one. Raises BadRow of the row that is next, BadFile."""
    first = True
    for line in lines:
        if not line.strip():
            continue
        if first and line.lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(b"["):
            yield from _array_rows(_whole(line, lines))
            return
        first = False
        if len(line) > LONGEST_ROW:
            is_whole = line.endswith(b"\n")
            del line
            yield BadRow(f"is longer than {LONGEST_ROW >> 20} MiB; split or shorten it")
            while not is_whole:  # the rest of it comes in pieces
                is_whole = next(lines, b"\n").endswith(b"\n")
            continue
        try:
            row = parse_json(_decoder.decode, decode(line))
        except BadRow as fault:
            row = fault
        yield row


def decode(line: bytes, encoding: str = "utf-8-sig") -> str:
    """Without the byte order mark that a file may begin with."""
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadRow(f"is not UTF-8: {error}") from error


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
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"is not UTF-8: {error}") from error


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
