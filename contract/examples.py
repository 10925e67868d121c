"""Reads a file of examples, row by row, into conversations. The API checks with it what the trainer will train on.

    messages   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    alpaca     {"instruction": "...", "input": "...", "output": "..."} and, where wanted, "system"

A file is JSON Lines, or one JSON array. Other fields of a row or a message are passed over, but for those that would
change what is learned (tools, functions, tool_calls, function_call, a weight other than 1): these are refused. Every
error is an InputError that names the row, counted from 1.
"""

import codecs
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypedDict

from contract.failure import FailureReason, InputError
from contract.quote import cut, quote

Format = Literal["messages", "alpaca"]
ROLES = ("system", "user", "assistant")

LONGEST_ROW = 64 << 20
"""Bytes of one line."""
LARGEST_ARRAY = 256 << 20
"""Bytes of a file that is one JSON array: it is held whole, in up to five times as much memory."""

_SPACE = re.compile(r"[ \t\r\n]*")
_decoder = json.JSONDecoder()


class Message(TypedDict):
    role: str
    content: str


Conversation = list[Message]


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def digest(path: Path) -> str:
    """sha256 of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_examples(
    path: Path, format: Format | Literal["auto"], *, largest: int | None = None, sha256: Hash | None = None
) -> Iterator[Conversation]:
    """The conversations of a file, in its order; each has an assistant's answer to learn from.

    `sha256` is updated with every byte that is read: after the last conversation it has the file's digest.
    Raises InputError: no rows, a row that is not of the format, or a file of more than `largest` bytes.
    """
    rows = 0
    for number, row in _rows(_lines(path, largest, sha256)):
        if not isinstance(row, dict):
            _refuse(number, f"must be a JSON object, not {quote(row)}")
        if format == "auto":
            format = _detect(number, row)
        yield _messages(number, row) if format == "messages" else _alpaca(number, row)
        rows += 1
    if rows == 0:
        _refuse(None, "has no rows; give one at least")


def _lines(path: Path, largest: int | None, sha256: Hash | None) -> Iterator[bytes]:
    """The lines of a file. One longer than a row may be comes in pieces of more than LONGEST_ROW bytes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                _refuse(None, f"has {size} bytes, and the service takes none larger than {largest} bytes; split it")
            while line := file.readline(LONGEST_ROW + 1):
                if sha256 is not None:
                    sha256.update(line)
                yield line
    except OSError as error:
        _refuse(None, f"{path.name} cannot be read: {error.strerror}")


def _rows(lines: Iterator[bytes]) -> Iterator[tuple[int, Any]]:
    number = 0
    for line in lines:
        if not line.strip():
            continue
        if number == 0 and line.lstrip(codecs.BOM_UTF8 + b" \t\r\n").startswith(b"["):
            yield from _array_rows(_whole(line, lines))
            return
        number += 1
        if len(line) > LONGEST_ROW:
            _refuse(number, f"is longer than {LONGEST_ROW >> 20} MiB; split or shorten it")
        yield number, _parse(_decoder.decode, number, _decode(line, number))


def _whole(first: bytes, lines: Iterator[bytes]) -> str:
    text = bytearray(first)
    for line in lines:
        text += line
        if len(text) > LARGEST_ARRAY:
            _refuse(
                None,
                f"is one JSON array of more than {LARGEST_ARRAY >> 20} MiB, which would be held whole; write it as "
                "JSON Lines, one row on each line",
            )
    return _decode(text, None)


def _array_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Row by row: other threads run in between, and a row that is no JSON has its number."""
    number = 0
    position = _after_space(text, text.index("[") + 1)
    ended = text.startswith("]", position)
    while not ended:
        number += 1
        row, position = _parse(_decoder.raw_decode, number, text, position)
        yield number, row
        position = _after_space(text, position)
        ended = text.startswith("]", position)
        if not ended:
            if not text.startswith(",", position):
                _refuse(number, "is followed by neither a comma nor the end of the array")
            position = _after_space(text, position + 1)
    if _after_space(text, position + 1) != len(text):
        _refuse(None, "goes on after the end of its array")


def _after_space(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _decode(text: bytes | bytearray, row: int | None) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(row, f"is not UTF-8: {error}")


def _parse(decode: Callable[..., Any], row: int, *text: Any) -> Any:
    try:
        return decode(*text)
    except json.JSONDecodeError as error:
        _refuse(row, f"is not JSON: {error}")
    except ValueError:
        _refuse(row, f"has a number of too many digits; write at most {sys.get_int_max_str_digits()}")
    except RecursionError:
        _refuse(row, "is nested too deep")


def _detect(row: int, fields: dict[str, Any]) -> Format:
    if "messages" in fields:
        return "messages"
    if "instruction" in fields:
        return "alpaca"
    names = ", ".join(cut(name, 40) for name in islice(fields, 10))
    _refuse(
        row,
        f"has the fields {names or '(none)'}, of no known format; give messages (a list), or instruction and output",
    )


def _messages(row: int, fields: dict[str, Any]) -> Conversation:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        _refuse(row, f"messages must be a list of at least one message, not {quote(messages)}")
    for name in ("tools", "functions"):
        if fields.get(name):
            _refuse(row, f"{name} are not supported yet; remove them, or leave the row out")
    conversation = [_message(row, f"messages[{index}]", message) for index, message in enumerate(messages)]
    if not any(message["role"] == "assistant" and message["content"].strip() for message in conversation):
        _refuse(row, "has no answer: no message of role assistant with content")
    return conversation


def _message(row: int, where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        _refuse(row, f"{where} must be an object with role and content, not {quote(message)}")
    role = message.get("role")
    if role not in ROLES:
        _refuse(row, f"{where}.role is {quote(role)}; use one of {', '.join(ROLES)}")
    for name in ("tool_calls", "function_call"):
        if message.get(name):
            _refuse(row, f"{where}.{name} is not supported yet; answer in content, or leave the row out")
    if role == "assistant" and message.get("weight") not in (None, 1):
        _refuse(
            row,
            f"{where}.weight is {quote(message['weight'])}, which is not supported yet: every answer is learned, with "
            "weight 1; end the row before it, or leave the row out",
        )
    return {"role": role, "content": _text(row, f"{where}.content", message.get("content"))}


def _alpaca(row: int, fields: dict[str, Any]) -> Conversation:
    instruction, input, output, system = (
        _text(row, name, "" if fields.get(name) is None else fields[name])
        for name in ("instruction", "input", "output", "system")
    )
    if not instruction.strip():
        _refuse(row, "instruction is empty")
    if not output.strip():
        _refuse(row, "has no answer: output is missing or empty")
    question = "\n\n".join(part for part in (instruction, input) if part)
    conversation: Conversation = [{"role": "system", "content": system}] if system else []
    conversation.append({"role": "user", "content": question})
    conversation.append({"role": "assistant", "content": output})
    return conversation


def _text(row: int, where: str, value: Any) -> str:
    if not isinstance(value, str):
        _refuse(row, f"{where} must be text, not {quote(value)}")
    if "\0" in value:
        _refuse(row, f"{where} has a NUL character (\\u0000), which is no text; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        _refuse(row, f"{where} is not whole text: it has {half}, half of a surrogate pair; write the whole pair")
    return value


def _refuse(row: int | None, problem: str) -> NoReturn:
    where = f"row {row}: " if row else "the file "
    raise InputError(FailureReason.DATASET_INVALID, f"{where}{problem}", "dataset")
