"""Formats user input for messages: short, and safe for JSON, logs, terminals and PostgreSQL."""

import json
from typing import Any


def format_value(value: Any, longest: int = 80) -> str:
    """A value as JSON, truncated at `longest` characters."""
    text = ""
    # In pieces: only as much of a large value is encoded as is shown, and deep nesting does no harm.
    for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
        text += piece[: longest + 1]
        if len(text) > longest:
            break
    return truncate(text, longest)


def truncate(text: str, longest: int = 80) -> str:
    """A text in printable characters, truncated at `longest` of them."""
    return escape_unprintable(text if len(text) <= longest else f"{text[: longest - 3]}...")


def escape_unprintable(text: str, kept: str = "") -> str:
    """Escapes, as JSON does, characters that begin a line, steer a terminal, or reorder or hide text: control
    characters, separators, directional marks, lone surrogates. Keeps the characters of `kept`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else json.dumps(char)[1:-1] for char in text)


def sentence(words: str) -> str:
    """The words with a capital letter and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."
