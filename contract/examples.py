"""Reads a file of examples, row by row, into conversations. The API checks with it what the trainer will train on.

    messages   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    alpaca     {"instruction": "...", "input": "...", "output": "..."} and, where wanted, "system"

A file is JSON Lines, or one JSON array. Every error is an InputError that names the row, counted from 1.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn, TypedDict

from contract.failure import FailureReason, InputError

Format = Literal["messages", "alpaca"]
ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    role: str
    content: str


Conversation = list[Message]


def digest(path: Path) -> str:
    """sha256 of a file, as lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_examples(path: Path, format: Format | Literal["auto"]) -> Iterator[Conversation]:
    """The conversations of a file, in its order; each has an assistant's answer to learn from.

    Raises InputError: no rows, or a row that is not of the format.
    """
    rows = 0
    for number, row in _rows(path):
        if not isinstance(row, dict):
            _refuse(number, f"must be a JSON object, not {_show(row)}")
        if format == "auto":
            format = _detect(number, row)
        yield _messages(number, row) if format == "messages" else _alpaca(number, row)
        rows += 1
    if rows == 0:
        raise InputError(FailureReason.DATASET_INVALID, f"{path.name} has no rows; give one at least", "dataset")


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        file.seek(0)
        if first == b"[":
            yield from enumerate(_load(file.read(), None), start=1)
            return
        number = 0
        for line in file:
            if line.strip():
                number += 1
                yield number, _load(line, number)


def _load(text: bytes, row: int | None) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        _refuse(row, f"is not UTF-8: {error}")
    except json.JSONDecodeError as error:
        _refuse(row, f"is not JSON: {error}")
    except RecursionError:
        _refuse(row, "is nested too deep")


def _detect(row: int, fields: dict[str, Any]) -> Format:
    if "messages" in fields:
        return "messages"
    if "instruction" in fields:
        return "alpaca"
    _refuse(
        row,
        f"has the fields {', '.join(map(str, fields)) or '(none)'}, of no known format; "
        "give messages (a list), or instruction and output",
    )


def _messages(row: int, fields: dict[str, Any]) -> Conversation:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        _refuse(row, f"messages must be a list of at least one message, not {_show(messages)}")
    conversation = [_message(row, index, message) for index, message in enumerate(messages)]
    if not any(message["role"] == "assistant" and message["content"].strip() for message in conversation):
        _refuse(row, "has no answer: no message of role assistant with content")
    return conversation


def _message(row: int, index: int, message: Any) -> Message:
    where = f"messages[{index}]"
    if not isinstance(message, dict):
        _refuse(row, f"{where} must be an object with role and content, not {_show(message)}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        _refuse(row, f"{where}.role is {_show(role)}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        _refuse(row, f"{where}.content must be text, not {_show(content)}")
    return {"role": role, "content": content}


def _alpaca(row: int, fields: dict[str, Any]) -> Conversation:
    instruction = _text(row, fields, "instruction")
    if not instruction.strip():
        _refuse(row, "instruction is empty")
    if "output" not in fields or not _text(row, fields, "output").strip():
        _refuse(row, "has no answer: output is missing or empty")
    question = "\n\n".join(part for part in (instruction, _text(row, fields, "input")) if part)
    system = _text(row, fields, "system")
    conversation: Conversation = [{"role": "system", "content": system}] if system else []
    conversation.append({"role": "user", "content": question})
    conversation.append({"role": "assistant", "content": fields["output"]})
    return conversation


def _text(row: int, fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        _refuse(row, f"{name} must be text, not {_show(value)}")
    return value


def _refuse(row: int | None, problem: str) -> NoReturn:
    where = f"row {row}: " if row else "the file "
    raise InputError(FailureReason.DATASET_INVALID, f"{where}{problem}", "dataset")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
