"""Reads the JSON of an answer into a frozen dataclass, by the dataclass's own hints."""

from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from functools import cache
from types import NoneType
from typing import Any, Self, get_args, get_origin, get_type_hints

from finetuned.errors import UnexpectedAnswer


@dataclass(frozen=True)
class Object:
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    """The JSON as the service sent it."""

    @classmethod
    def from_json(cls, value: dict[str, Any], **given: Any) -> Self:
        """Reads the fields; `given` are those that do not come from JSON. Raises UnexpectedAnswer."""
        try:
            return cls(**_read_fields(cls, value), raw=value, **given)
        except (TypeError, ValueError, AttributeError) as error:
            raise UnexpectedAnswer(f"the answer is no {cls.__name__}: {error}") from error


def _read_fields(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, (hint, has_default) in _readable(kind).items():
        if value.get(name) is not None:
            found[name] = _read(hint, value[name])
        elif not has_default:
            raise ValueError(f"{name} is missing")
    return found


@cache
def _readable(kind: type) -> dict[str, tuple[Any, bool]]:
    hints = get_type_hints(kind)
    return {
        each.name: (hints[each.name], each.default is not MISSING or each.default_factory is not MISSING)
        for each in fields(kind)
        if not each.kw_only
    }


def _read(hint: Any, value: Any) -> Any:
    options = [each for each in get_args(hint) if each is not NoneType]
    if NoneType in get_args(hint):
        return _read(options[0], value)
    if get_origin(hint) is tuple:
        return tuple(_read(options[0], each) for each in value)
    if get_origin(hint) is dict:
        return {name: _read(options[1], each) for name, each in value.items()}
    if hint is datetime:
        return datetime.fromisoformat(value)
    return hint.from_json(value) if isinstance(hint, type) and issubclass(hint, Object) else value
