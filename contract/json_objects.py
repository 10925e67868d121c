"""JSON objects without repeated keys. Parsers keep the last value of a key that is given twice, and pass over the first
silently."""

import json
from collections import Counter
from typing import Any

from contract.formatting import format_value, truncate

REPEATED = "given more than once in one object; give it once"


class RepeatedKey(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {format_value(key, 40)} is {REPEATED}")


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object_pairs_hook of the json module. Raises RepeatedKey."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise RepeatedKey(_first_repeated(pairs) or "")
    return made


class _Pairs(list[tuple[str, Any]]):
    """An object with all of its keys."""


def _first_repeated(pairs: list[tuple[str, Any]]) -> str | None:
    return next((key for key, count in Counter(key for key, _ in pairs).items() if count > 1), None)


def find_repeated_key(text: bytes | str) -> str | None:
    """The dotted path of the first repeated key in a JSON text that a stricter parser has accepted."""
    try:
        return _find(json.loads(text, object_pairs_hook=_Pairs), "")
    except (ValueError, RecursionError):  # a number of too many digits, or a field that may be nested without end
        return None


def _find(value: Any, path: str) -> str | None:
    if isinstance(value, _Pairs):
        if (repeated := _first_repeated(value)) is not None:
            return truncate(path + repeated)
        return next(filter(None, (_find(below, f"{path}{key}.") for key, below in value)), None)
    if isinstance(value, list):
        return next(filter(None, (_find(item, path) for item in value)), None)
    return None
