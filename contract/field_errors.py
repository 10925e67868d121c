"""Says what is wrong with a body in the user's words: the field, what was given, what would do."""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from contract.patterns import TEXT, WORDS
from contract.quote import cut, quote
from contract.renamed import RENAMED

_MEMBER = re.compile(r"<[\w.]+: ('[^']*')>")
"""A member of an enum, as pydantic writes it."""
MOST_ERRORS = 100
"""Of a megabyte of nonsense a glance is enough."""


def problems(model: type[BaseModel], errors: Iterable[ErrorDetails]) -> dict[str, str]:
    """What is wrong with each field, by its dotted path; "" is the body. A value that fits no branch of a union has an
    error for each branch: it is one problem."""
    by_field: dict[str, list[ErrorDetails]] = {}
    for error in islice(errors, MOST_ERRORS):
        by_field.setdefault(_path(model, error), []).append(error)
    return {path: _explain(model, path, found) for path, found in by_field.items()}


def plain(error: ErrorDetails) -> str:
    """What would do in place of a value that fits neither a body's field nor a parameter."""
    if error["type"] == "string_pattern_mismatch":
        return f"use {WORDS[error['ctx']['pattern']]}"
    message = _MEMBER.sub(r"\1", error["msg"])
    return message[0].lower() + message[1:]


def _path(model: type[BaseModel], error: ErrorDetails) -> str:
    """The dotted path of the user's field. What pydantic adds for branches and places in a list is left out."""
    names = [name for name, field in _walk(model, error) if field is not None]
    if error["type"] == "extra_forbidden":
        names.append(cut(str(error["loc"][-1])))
    param = getattr(error.get("ctx", {}).get("error"), "param", None)
    return ".".join([*names, param] if param else names)


def _walk(model: type[BaseModel], error: ErrorDetails) -> list[tuple[str, FieldInfo | None]]:
    """The names on the way to the error, each with its field where the body has one."""
    section: type[BaseModel] | None = model
    walked: list[tuple[str, FieldInfo | None]] = []
    for part in map(str, error["loc"]):
        field = section.model_fields.get(part) if section else None
        walked.append((part, field))
        section = _section(field) if field else None
    return walked


def _section(field: FieldInfo) -> type[BaseModel] | None:
    return next((o for o in _branches(field) if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _branches(field: FieldInfo) -> tuple[Any, ...]:
    annotation = field.annotation
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if is_union else (annotation,)


def _explain(model: type[BaseModel], path: str, found: list[ErrorDetails]) -> str:
    error = found[-1]
    walked = _walk(model, error)
    field = next((field for _, field in reversed(walked) if field), None)
    given, context = quote(error["input"]), error.get("ctx", {})
    match error["type"]:
        case "json_invalid":
            return f"the body is not JSON: {context['error']}"
        case "missing":
            return f"{path}: required, but missing{_description(field)}"
        case "extra_forbidden" if path in RENAMED:
            return f"{path}: unknown field; it is now {RENAMED[path]}"
        case "extra_forbidden":
            return f"{path}: unknown field; {_known_fields(model, walked)}"
        case "value_error":
            return f"{path or 'body'}: {context['error']}"
        case "model_type" if not path:
            return f"the body must be a JSON object, not {given}"
        case "model_type":
            return f"{path}: got {given}; give a JSON object{_description(field)}"
    if field is not None and len(set(_branches(field)) - {type(None)}) > 1:
        # The branch that is reached by the fewest names has the whole value.
        whole = min(found, key=lambda error: len(error["loc"]))["input"]
        return f"{path}: got {quote(whole)}; use {accepted(field)}{_description(field)}"
    return f"{path or 'body'}: got {given}; {plain(error)}{_description(field)}"


def _description(field: FieldInfo | None) -> str:
    """The field's own description, where it has one."""
    text = " ".join(field.description.split()) if field and field.description else None
    return f" ({text[0].lower()}{text[1:].removesuffix('.')})" if text else ""


def _known_fields(model: type[BaseModel], walked: list[tuple[str, FieldInfo | None]]) -> str:
    fields = [field for _, field in walked[:-1] if field]
    section = _section(fields[-1]) if fields else model
    known = sorted(section.model_fields) if section else []
    close = difflib.get_close_matches(cut(walked[-1][0]), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known here: {', '.join(known)}"


def accepted(field: FieldInfo) -> str:
    """The values that a field takes, in words."""
    annotated: Any = Annotated[(field.annotation, *field.metadata, "with its bounds")]
    return _words(TypeAdapter(annotated).json_schema())


def _rank(schema: dict[str, Any]) -> int:
    return 2 if schema.get("type") == "null" else int("const" in schema or "enum" in schema)


def _words(schema: dict[str, Any]) -> str:
    match schema:
        case {"anyOf": branches}:
            # A word such as "auto" comes after numbers and texts, and null at the end.
            *first, last = map(_words, sorted(branches, key=_rank))
            return f"{', '.join(first)}, or {last}"
        case {"const": value}:
            return json.dumps(value)
        case {"enum": values}:
            return " or ".join(filter(None, [", ".join(map(json.dumps, values[:-1])), json.dumps(values[-1])]))
        case {"type": "integer" | "number" as kind}:
            return _numbers(schema, "a whole number" if kind == "integer" else "a number")
        case {"type": "string", "pattern": str(pattern)} if pattern != TEXT:
            return WORDS[pattern]
        case {"type": "array", "items": items}:
            return f"a list of values, each {_words(items)}"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "null"}:
            return "null"
        case {"type": "string"}:
            return "text"
    return "a JSON object"


def _numbers(schema: dict[str, Any], noun: str) -> str:
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"{noun} from {least:g} to {most:.15g}"
    bounds = [
        f"of at least {least:g}" if least is not None else "",
        f"above {above:g}" if above is not None else "",
        f"up to {most:.15g}" if most is not None else "",
        f"below {below:.15g}" if below is not None else "",
    ]
    return " ".join([noun, " and ".join(filter(None, bounds))]).strip()
