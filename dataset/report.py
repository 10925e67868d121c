"""What one pass over a file tells of it: whether every row can be learned, and what is odd.

Memory is flat but for 18 bytes a row, by which a row is known to come again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from contract.quote import cut
from contract.recipe import DatasetField, DatasetFormat
from dataset.example import Conversation, Example, PlainText, says_something
from dataset.fields import Row
from dataset.formats.detect import FORMATS
from dataset.formats.known_fields import unused_fields
from dataset.read import Reading
from dataset.refusal import BadFile, BadRow, NoAnswer

MOST_ERRORS = 100
_MOST_NAMED = 10
_LONGEST_MESSAGE = 500
_MOST_UNUSED = 50


class Problem(BaseModel):
    row: int | None
    """From 1; null where it is the whole file's."""
    message: str


class Report(BaseModel):
    format: DatasetFormat | None
    """Of the rows; null where none has the shape of one."""
    columns: dict[DatasetField, str] = {}
    """Which column of the file became which field of the format, where it has another name: as the owner said, or as
    the names tell."""
    rows: int
    """That were read; all of them, unless an error says otherwise."""
    examples: int
    """That can be learned. A row is one, or one of each instance of self_instruct."""
    bad_rows: int
    without_answer: int
    """Of the bad rows: those that have nothing to learn."""
    empty_answers: int
    """Of the examples: answers that say nothing beside others that do; they are not learned."""
    duplicates: int
    """Examples that are as one before them, but for white space."""
    duplicate_rows: list[int]
    """The first ten of them."""
    messages: int
    longest_characters: int
    """Of one example, all its messages together."""
    errors: list[Problem]
    """The first hundred."""
    error_count: int
    unused_fields: dict[str, int] = {}
    """Fields that hold something and that nothing reads, with the number of their rows: "id", or "messages[].id" for
    one of messages. The first fifty."""


def report(
    path: Path,
    name: str,
    format: DatasetFormat | Literal["auto"] = "auto",
    columns: Mapping[DatasetField, str] | None = None,
    largest: int | None = None,
) -> Report:
    """`name` is what people call the file. Raises nothing for what is wrong with it."""
    found = Report(
        format=None,
        rows=0,
        examples=0,
        bad_rows=0,
        without_answer=0,
        empty_answers=0,
        duplicates=0,
        duplicate_rows=[],
        messages=0,
        longest_characters=0,
        errors=[],
        error_count=0,
        unused_fields={},
    )
    seen = _Seen()
    reading = Reading(path, name, format, columns or {}, largest)
    try:
        for row in reading.rows():
            found.rows = row.number
            if isinstance(row.read, BadRow):
                found.bad_rows += 1
                found.without_answer += isinstance(row.read, NoAnswer)
                _tell(found, row.number, str(row.read))
            else:
                for example in row.read:
                    _count(found, row.number, example, seen)
                _count_unused(found, reading, row.row)
    except BadFile as error:
        _tell(found, None, f"the file {error}")
    found.format = None if reading.format == "auto" else reading.format
    found.columns = dict(reading.columns)
    return found


def _tell(found: Report, row: int | None, message: str) -> None:
    found.error_count += 1
    if len(found.errors) < MOST_ERRORS:
        found.errors.append(Problem(row=row, message=cut(message, _LONGEST_MESSAGE)))


def _count(found: Report, row: int, example: Example, seen: "_Seen") -> None:
    found.examples += 1
    if isinstance(example, PlainText):
        texts = [example.text]
    else:
        texts = [message.get("reasoning_content", "") + message["content"] for message in example.messages]
        found.messages += len(texts)
        found.empty_answers += sum(
            message["role"] == "assistant" and not says_something(message) for message in example.messages
        )
    found.longest_characters = max(found.longest_characters, sum(map(len, texts)))
    if seen.again(_digest(example)):
        found.duplicates += 1
        if len(found.duplicate_rows) < _MOST_NAMED:
            found.duplicate_rows.append(row)


def _count_unused(found: Report, reading: Reading, row: Row) -> None:
    assert reading.format != "auto", "a row has been read"
    for name in unused_fields(reading.format, FORMATS[reading.format].fields, row):
        if name in found.unused_fields or len(found.unused_fields) < _MOST_UNUSED:
            found.unused_fields[name] = found.unused_fields.get(name, 0) + 1


def _digest(example: Example) -> bytes:
    if isinstance(example, Conversation):
        messages = [{**message, "content": " ".join(message["content"].split())} for message in example.messages]
        given = [messages, example.supervised, example.tools, example.template_arguments]
        text = json.dumps(given, sort_keys=True, default=str)
    else:
        text = " ".join(example.text.split())
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class _Seen:
    """A set of digests that takes little more than their bytes: Python's own takes five times that."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytearray] = {}

    def again(self, digest: bytes) -> bool:
        bucket = self._buckets.setdefault(digest[:2], bytearray())
        # Across two of them it would be found by chance once in 2**128.
        if digest in bucket:
            return True
        bucket += digest
        return False
