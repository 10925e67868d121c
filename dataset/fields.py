"""What the fields of a row may hold. Every refusal is a BadRow that names the field."""

import json
import math
import re
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

from contract.formatting import format_value, truncate
from dataset.refusal import BadRow, NoAnswer

Row = dict[str, Any]

_PYTHON = re.compile(r"\s*\[?\s*\{\s*'")

MAX_DEPTH = 64
"""Levels of a tool's parameters or a call's arguments: far above what people write, far below where templates fail."""


def as_text(where: str, value: Any) -> str:
    """Text that a log, JSON and PostgreSQL can all hold."""
    if not isinstance(value, str):
        advice = f'; write it as text, as "{value}"' if type(value) in (int, float) else ""
        raise BadRow(f"{where} must be text, not {format_value(value)}{truncate(advice, 80)}")
    if "\0" in value:
        raise BadRow(f"{where} has a NUL character (\\u0000), which is no text; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise BadRow(
            f"{where} is not whole text: it has {half}, half of a surrogate pair; write the whole pair"
        ) from error
    return value


def optional_text(row: Row, name: str) -> str:
    """Empty where the row has none. Parquet writes null in a row that lacks what another row has."""
    value = row.get(name)
    return "" if value is None else as_text(name, value)


def is_blank(value: Any) -> bool:
    """Null, or an empty text, list or object: Parquet and CSV write one in each row that lacks what others have."""
    return value is None or (
        isinstance(value, str | list | dict) and not (value.strip() if isinstance(value, str) else value)
    )


def required_answer(row: Row, name: str) -> str:
    """The text that is to be learned."""
    answer = optional_text(row, name)
    if name not in row:
        raise NoAnswer(f"has no answer: no {name} in {list_names(row)}; dataset.columns can say which column it is")
    if not answer.strip():
        raise NoAnswer(f"has no answer: {name} is empty")
    return answer


def list_names(row: Row) -> str:
    return ", ".join(truncate(str(name), 40) for name in islice(row, 10)) or "(nothing)"


def as_list(where: str, value: Any, of: str) -> list[Any]:
    """A list, or the JSON text of one: a CSV cell can be nothing else, and many Parquet files hold it so."""
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    if not isinstance(given, list) or not given:
        raise BadRow(f"{where} must be a list of at least one {of}, not {format_value(given)}")
    return given


def optional_list(where: str, value: Any, of: str) -> list[Any]:
    """Empty for null, for an empty list and for an empty text."""
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    return as_list(where, given, of) if given else []


def parse_text(where: str, value: str) -> Any:
    """The value of a field that is given as its JSON text."""
    try:
        return parse_json(json.loads, value)
    except BadRow as error:
        advice = "; write it with json.dumps, not as Python prints it" if _PYTHON.match(value) else ""
        raise BadRow(f"{where} {error}: {format_value(value)}{advice}") from error


def parse_json(decode: Callable[..., Any], *text: Any) -> Any:
    try:
        return decode(*text)
    except json.JSONDecodeError as error:
        raise BadRow(f"is not JSON: {error}") from error
    except ValueError as error:
        raise BadRow(f"has a number of too many digits; write at most {sys.get_int_max_str_digits()}") from error
    except RecursionError as error:
        raise BadRow("is nested too deep") from error


def check_json(where: str, value: Any) -> None:
    """Refuses what a chat template could not write as JSON."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise BadRow(f"{where} is nested too deep; {MAX_DEPTH} levels are taken")
        below: list[Any] = []
        for item in level:
            if isinstance(item, str):
                as_text(where, item)
            elif isinstance(item, dict):
                below += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                below += item
            elif isinstance(item, float) and not math.isfinite(item):
                raise BadRow(f"{where} has {item}, which JSON has no way to write")
            elif item is not None and not isinstance(item, bool | int | float):
                raise BadRow(f"{where} has {format_value(item)}, which JSON has no way to write")
        level, depth = below, depth + 1
