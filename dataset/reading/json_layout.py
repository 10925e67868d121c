"""JSON that is not laid out a row on a line: told once, by the first line that has something on it."""

import json
import re

from contract.quote import quote

_COMPACT = "write each row on one line, as jq -c . FILE does"
_PYTHON = re.compile(r"\{\s*'")


def problem_of_layout(first: str, following: bytes, error: json.JSONDecodeError) -> str | None:
    """Words that go on after "the file ", where the lines after the first must have its fault too; `error` is the
    fault, and `following` how the next line begins that is not blank."""
    line = first.strip()
    if _PYTHON.match(line):
        return "has rows as Python prints a dict, with single quotes; write them with json.dumps"
    if not line.startswith("{") and "\t" in line:
        return (
            f"begins with {quote(line, 40)}, which is no JSON; if tabs separate its cells, write it with commas as .csv"
        )
    if not line.startswith("{"):
        return (
            f"begins with {quote(line, 40)}, which is no JSON; give a row of JSON on each line, or name the file .csv "
            "or, where it is plain text, .txt"
        )
    more = line[error.pos :].lstrip() if error.msg == "Extra data" else ""
    if more.startswith(","):
        return "has commas between its rows, and no brackets around them; leave the commas out, or write [ and ]"
    if more.startswith(("{", "[")):
        return f"has more than one row on a line; {_COMPACT}"
    if error.pos >= len(line) and following and not following.startswith(b"{"):
        return f"has a row of JSON on many lines; {_COMPACT}, or jq -c '.NAME[]' where the rows are a list in it"
    return None
