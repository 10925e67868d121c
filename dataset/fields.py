"""Validates the fields of a row. Every refusal is a BadRow that names the field."""

import json
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

from contract.formatting import format_value, truncate
from contract.json_objects import RepeatedKey, unique_object
from dataset.refusal import BadRow, NoAnswer

Row = dict[str, Any]

_PYTHON = re.compile(r"\s*\[?\s*\{\s*'")

MAX_DEPTH = 64
"""Levels of nesting in a tool's parameters or a call's arguments: far more than people write, far fewer than break
templates."""


def as_text(where: str, value: Any) -> str:
    """Text that logs, JSON and PostgreSQL can all hold."""
    if not isinstance(value, str):
        advice = f'; write it as text, as "{value}"' if type(value) in (int, float) else ""
        raise BadRow(f"{where} must be text, not {format_value(value)}{truncate(advice, 80)}")
    if "\0" in value:
        raise BadRow(f"{where} has a NUL character (\\u0000), which is not text; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise BadRow(
            f"{where} is not whole text: it has {half}, half of a surrogate pair; write the whole pair"
        ) from error
    return value


def optional_text(row: Row, name: str) -> str:
    """The text of a field, empty if the row has none. Parquet writes null for a field that only other rows have."""
    value = row.get(name)
    return "" if value is None else as_text(name, value)


def is_blank(value: Any) -> bool:
    """True for null and for an empty text, list or object. Parquet and CSV write one for each field that only other
    rows have."""
    return value is None or (
        isinstance(value, str | list | dict) and not (value.strip() if isinstance(value, str) else value)
    )


def required_answer(row: Row, name: str) -> str:
    """The text to be learned."""
    answer = optional_text(row, name)
    if name not in row:
        raise NoAnswer(f"has no answer: no {name} in {list_names(row)}; dataset.columns can say which column it is")
    if not answer.strip():
        raise NoAnswer(f"has no answer: {name} is empty")
    return answer


def list_names(row: Row) -> str:
    return ", ".join(truncate(str(name), 40) for name in islice(row, 10)) or "(nothing)"


def as_list(where: str, value: Any, of: str) -> list[Any]:
    """A list, or the JSON text of one. A CSV cell can hold nothing else, and many Parquet files do the same."""
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    if not isinstance(given, list) or not given:
        raise BadRow(f"{where} must be a list of at least one {of}, not {format_value(given)}")
    return given


def optional_list(where: str, value: Any, of: str) -> list[Any]:
    """As as_list, but empty for null, an empty list and an empty text."""
    given = parse_text(where, value) if isinstance(value, str) and value.strip() else value
    return as_list(where, given, of) if given else []


def parse_text(where: str, value: str) -> Any:
    """The value of a field that is given as JSON text."""
    try:
        return parse_json(partial(json.loads, object_pairs_hook=unique_object), value)
    except BadRow as error:
        advice = "; write it with json.dumps, not as Python prints it" if _PYTHON.match(value) else ""
        raise BadRow(f"{where} {error}: {format_value(value)}{advice}") from error


def parse_json(decode: Callable[..., Any], *text: Any) -> Any:
    try:
        return decode(*text)
    except json.JSONDecodeError as error:
        raise BadRow(f"is not JSON: {error}") from error
    except RepeatedKey as error:
        raise BadRow(f"cannot be read: {error}") from error
    except ValueError as error:
        raise BadRow(f"has a number of too many digits; write at most {sys.get_int_max_str_digits()}") from error
    except RecursionError as error:
        raise BadRow("is nested too deep") from error


def check_json(where: str, value: Any) -> None:
    """Refuses values that a chat template cannot write as JSON."""
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
