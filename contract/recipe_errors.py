"""Says what is wrong with a recipe in the user's words: the field, what was given, what would do."""

import difflib
import json
import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe


def read_recipe(body: bytes | str) -> Recipe:
    """The recipe in a JSON text. Raises InputError that names the first field at fault and tells of all."""
    try:
        return Recipe.model_validate_json(body)
    except ValidationError as error:
        problems = _without_union_branches(error.errors(include_url=False))
        message = "; ".join(_explain(problem) for problem in problems)
        raise InputError(FailureReason.RECIPE_INVALID, message, _param(problems[0]) or None) from error


def _without_union_branches(problems: list[ErrorDetails]) -> list[ErrorDetails]:
    """One problem per field: a value that fits no branch of a union is told once, by the branch that has its shape."""
    by_field: dict[str, ErrorDetails] = {}
    for problem in problems:
        field = _param(problem)
        if field not in by_field or by_field[field]["type"] == "literal_error":
            by_field[field] = problem
    return list(by_field.values())


def _param(problem: ErrorDetails) -> str:
    """The dotted path of the user's field, without the names pydantic gives to the branches of a union."""
    names: list[str] = []
    section: Any = Recipe
    for part in problem["loc"]:
        if isinstance(part, int):
            names[-1] = f"{names[-1]}[{part}]"
        elif section is not None and (part in section.model_fields or problem["type"] == "extra_forbidden"):
            names.append(part)
            section = _section(section, part)
    return ".".join(names)


def _section(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = section.model_fields.get(name)
    annotation = field.annotation if field else None
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _explain(problem: ErrorDetails) -> str:
    field = _param(problem)
    given = problem["input"]
    context = problem.get("ctx", {})
    match problem["type"]:
        case "json_invalid":
            return f"the body is not JSON: {context.get('error', problem['msg'])}"
        case "model_type" | "model_attributes_type" if not field:
            return f"the body must be a JSON object with the recipe's fields, not {_show(given)}"
        case "missing":
            return f"{field}: required, but missing; {_describe(problem)}"
        case "extra_forbidden":
            return f"{field}: unknown field; {_known_fields(problem)}"
        case "value_error":
            return f"{field or 'recipe'}: {context['error']}" if "error" in context else f"{field}: {problem['msg']}"
        case _:
            return f"{field}: got {_show(given)}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _describe(problem: ErrorDetails) -> str:
    field = Recipe.model_fields.get(str(problem["loc"][0]))
    if len(problem["loc"]) == 1 and field is not None and field.description:
        return field.description[0].lower() + field.description[1:]
    if problem["loc"] == ("dataset", "path"):
        return "a file of examples on the server"
    return "give a value"


def _known_fields(problem: ErrorDetails) -> str:
    section: type[BaseModel] | None = Recipe
    for part in problem["loc"][:-1]:
        section = _section(section, str(part)) if section else None
    known = sorted(section.model_fields) if section else []
    close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known here: {', '.join(known)}"


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
