"""Recognises JSON that does not have one row per line, by its first non-blank line."""

import json
import re

from contract.formatting import format_value

_COMPACT = "write each row on one line, as jq -c . FILE does"
_PYTHON = re.compile(r"\{\s*'")


def layout_problem(first: str, following: bytes, error: json.JSONDecodeError) -> str | None:
    """The problem as it continues "the file ", if the lines after the first must have the same fault. `error` is the
    fault, and `following` the beginning of the next non-blank line."""
    line = first.strip()
    if _PYTHON.match(line):
        return "has rows as Python prints a dict, with single quotes; write them with json.dumps"
    if not line.startswith("{") and "\t" in line:
        return (
            f"begins with {format_value(line, 40)}, which is not JSON; if tabs separate its cells, write it with "
            "commas as .csv"
        )
    if not line.startswith("{"):
        return (
            f"begins with {format_value(line, 40)}, which is not JSON; give a row of JSON on each line, or name the "
            "file .csv or, where it is plain text, .txt"
        )
    more = line[error.pos :].lstrip() if error.msg == "Extra data" else ""
    if more.startswith(","):
        return "has commas between its rows, and no brackets around them; leave the commas out, or write [ and ]"
    if more.startswith(("{", "[")):
        return f"has more than one row on a line; {_COMPACT}"
    if error.pos >= len(line) and following and not following.startswith(b"{"):
        return f"has a row of JSON on many lines; {_COMPACT}, or jq -c '.NAME[]' where the rows are a list in it"
    return None
