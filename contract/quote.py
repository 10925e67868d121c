"""Shows a user what was given, in a message that stays short and that JSON, a log and PostgreSQL all can hold."""

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
    """A name, cut at `longest` characters, with lone surrogates and NUL written out."""
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return short.encode(errors="backslashreplace").decode().replace("\0", "\\u0000")
