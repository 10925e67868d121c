"""Checks a file in one pass: whether every row can be learned, and what is unusual.

Memory is constant apart from 18 bytes per row, which recognise duplicates.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from contract.dataset_format import DatasetField, DatasetFormat
from contract.formatting import truncate
from contract.method import Learned
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import DatasetReader
from dataset.example import (
    Conversation,
    Example,
    PlainText,
    Preference,
    conversations_of,
    has_content,
    rating_of,
)
from dataset.fields import Row
from dataset.formats.detect import FORMATS
from dataset.formats.known_fields import unused_fields
from dataset.refusal import BadFile, BadRow, NoAnswer

MAX_ERRORS = 100
_MAX_LISTED = 10
_MAX_MESSAGE = 500
_MAX_UNUSED = 50


class Problem(BaseModel):
    row: int | None
    """Row number from 1; null for a problem of the whole file."""
    message: str


class DatasetReport(BaseModel):
    format: DatasetFormat | None
    """Format of the rows; null if no row fits one."""
    columns: dict[DatasetField, str] = {}
    """The file's column for each field of the format that it names differently, as the owner said or as detected."""
    rows: int
    """Number of rows read; all of them, unless an error says otherwise."""
    examples: int
    """Number of examples that can be learned. A row is one example, except in self_instruct, where each instance is
    one."""
    bad_rows: int
    without_answer: int
    """Number of bad rows that have nothing to learn."""
    empty_answers: int
    """Number of empty answers in examples with other answers; they are not learned."""
    duplicates: int
    """Number of examples that equal an earlier one, apart from white space."""
    duplicate_rows: list[int]
    """Rows of the first ten duplicates."""
    messages: int
    longest_characters: int
    """Characters in the longest example, all its messages together."""
    learned: Learned | None = None
    """What the rows have: answers, pairs of answers, or answers with ratings; null if no row can be read."""
    identical_pairs: int = 0
    """Number of pairs whose two answers are equal; nothing can be learned from their difference."""
    desirable: int = 0
    """Number of answers rated as good."""
    undesirable: int = 0
    """Number of answers rated as bad."""
    errors: list[Problem]
    """The first hundred errors."""
    error_count: int
    unused_fields: dict[str, int] = {}
    """Non-empty fields that nothing reads, with their number of rows: "id", or "messages[].id" for a field of messages.
    The first fifty."""


def check_file(file: DatasetFile, max_bytes: int | None = None) -> DatasetReport:
    """A fault of the file becomes an error in the report, not an exception."""
    found = DatasetReport(
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
    seen = _SeenDigests()
    reading = DatasetReader(file, max_bytes)
    try:
        for row in reading.rows():
            found.rows = row.number
            if isinstance(row.read, BadRow):
                found.bad_rows += 1
                found.without_answer += isinstance(row.read, NoAnswer)
                _record_error(found, row.number, str(row.read))
            else:
                for example in row.read:
                    _count(found, row.number, example, seen)
                _count_unused(found, reading, row.row)
    except BadFile as error:
        _record_error(found, None, f"the file {error}")
    found.format = None if reading.format == "auto" else reading.format
    found.learned = reading.learned
    found.columns = dict(reading.columns)
    return found


def _record_error(found: DatasetReport, row: int | None, message: str) -> None:
    found.error_count += 1
    if len(found.errors) < MAX_ERRORS:
        found.errors.append(Problem(row=row, message=truncate(message, _MAX_MESSAGE)))


def _count(found: DatasetReport, row: int, example: Example, seen: "_SeenDigests") -> None:
    found.examples += 1
    if isinstance(example, PlainText):
        found.longest_characters = max(found.longest_characters, len(example.text))
    for each in conversations_of(example):
        _count_messages(found, each)
    found.identical_pairs += isinstance(example, Preference) and example.chosen == example.rejected
    found.desirable += rating_of(example) is True
    found.undesirable += rating_of(example) is False
    if seen.add(_digest(example)):
        found.duplicates += 1
        if len(found.duplicate_rows) < _MAX_LISTED:
            found.duplicate_rows.append(row)


def _count_messages(found: DatasetReport, example: Conversation) -> None:
    texts = [message.get("reasoning_content", "") + message["content"] for message in example.messages]
    found.messages += len(texts)
    found.empty_answers += sum(
        message["role"] == "assistant" and not has_content(message) for message in example.messages
    )
    found.longest_characters = max(found.longest_characters, sum(map(len, texts)))


def _count_unused(found: DatasetReport, reading: DatasetReader, row: Row) -> None:
    assert reading.format != "auto", "a row has been read"
    for name in unused_fields(reading.format, FORMATS[reading.format].fields, row, reading.learned):
        if name in found.unused_fields or len(found.unused_fields) < _MAX_UNUSED:
            found.unused_fields[name] = found.unused_fields.get(name, 0) + 1


def _digest(example: Example) -> bytes:
    if isinstance(example, PlainText):
        text = " ".join(example.text.split())
    else:
        given: list[Any] = [part for each in conversations_of(example) for part in _parts(each)]
        rating = rating_of(example)
        text = json.dumps(given if rating is None else [*given, rating], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _parts(example: Conversation) -> list[Any]:
    messages = [{**message, "content": " ".join(message["content"].split())} for message in example.messages]
    return [messages, example.supervised, example.tools, example.template_arguments]


class _SeenDigests:
    """A set of digests that takes little more than their bytes; Python's own set takes five times that."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytearray] = {}

    def add(self, digest: bytes) -> bool:
        bucket = self._buckets.setdefault(digest[:2], bytearray())
        # A match across two digests has a chance of one in 2**128.
        if digest in bucket:
            return True
        bucket += digest
        return False
