"""Shows a user what was given, in a message that stays short and that JSON, a log, a terminal and PostgreSQL all can
hold."""

import json
from typing import Any


def quote(value: Any, longest: int = 80) -> str:
    """A value as JSON, cut at `longest` characters."""
    text = ""
    # Piece by piece: no more of a large value is written than is shown, and none is nested too deep.
    for piece in json.JSONEncoder(ensure_ascii=False, default=str).iterencode(value):
        text += piece[: longest + 1]
        if len(text) > longest:
            break
    return cut(text, longest)


def cut(text: str, longest: int = 80) -> str:
    """A name, printable and cut at `longest` characters."""
    return printable(text if len(text) <= longest else f"{text[: longest - 3]}...")


def printable(text: str, kept: str = "") -> str:
    """Escapes as JSON does what would begin a line, steer a terminal, or reorder or hide what stands beside it: control
    characters, separators, directions of writing, lone surrogates. Leaves the characters of `kept`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else json.dumps(char)[1:-1] for char in text)


def sentence(words: str) -> str:
    """With a capital and a full stop."""
    return f"{words[:1].upper()}{words[1:]}."
