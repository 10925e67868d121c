"""Says what is wrong with a recipe in the user's words: the field, what was given, what would do."""

import difflib
import types
import typing
from itertools import islice

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from contract.failure import FailureReason, InputError
from contract.quote import cut, quote
from contract.recipe import Conflict, Recipe

MOST_PROBLEMS = 10


def read_recipe(body: bytes | str) -> Recipe:
    """The recipe in a JSON text. Raises InputError that names the first field at fault and tells of the first ten."""
    try:
        return Recipe.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False)) from error


def _refusal(found: list[ErrorDetails]) -> InputError:
    # A value that fits no branch of a union has a problem for each branch: the last one speaks for the field.
    # Of a megabyte of nonsense a glance is enough.
    problems = {_param(problem): problem for problem in islice(found, 10 * MOST_PROBLEMS)}
    told = list(islice(problems.items(), MOST_PROBLEMS))
    more = len(problems) - len(told) + len(found[10 * MOST_PROBLEMS :])
    words = [_explain(param, problem) for param, problem in told]
    if more:
        words.append(f"and {more} more problems")
    return InputError(FailureReason.RECIPE_INVALID, "; ".join(words), told[0][0] or None)


def _param(problem: ErrorDetails) -> str:
    """The dotted path of the user's field. What pydantic adds for branches and places in a list is left out."""
    names = [name for name, field in _walk(problem) if field is not None]
    if problem["type"] == "extra_forbidden":
        names.append(cut(str(problem["loc"][-1])))
    if isinstance(conflict := problem.get("ctx", {}).get("error"), Conflict):
        names.append(conflict.param)
    return ".".join(names)


def _walk(problem: ErrorDetails) -> list[tuple[str, FieldInfo | None]]:
    """The names on the way to the problem, each with its field where the recipe has one."""
    section: type[BaseModel] | None = Recipe
    walked: list[tuple[str, FieldInfo | None]] = []
    for part in map(str, problem["loc"]):
        field = section.model_fields.get(part) if section else None
        walked.append((part, field))
        section = _section(field) if field else None
    return walked


def _section(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _explain(param: str, problem: ErrorDetails) -> str:
    given = quote(problem["input"])
    context = problem.get("ctx", {})
    match problem["type"]:
        case "json_invalid":
            return f"the body is not JSON: {context['error']}"
        case "missing":
            return f"{param}: required, but missing{_wanted(problem)}"
        case "extra_forbidden":
            return f"{param}: unknown field; {_known_fields(problem)}"
        case "value_error":
            return f"{param}: {context['error']}"
        case "model_type" if not param:
            return f"the body must be a JSON object with the recipe's fields, not {given}"
        case "model_type":
            return f"{param}: got {given}; give a JSON object{_wanted(problem)}"
        case _:
            message = problem["msg"]
            return f"{param}: got {given}; {message[0].lower()}{message[1:]}{_wanted(problem)}"


def _wanted(problem: ErrorDetails) -> str:
    """The field's own description, where it has one."""
    field = next((field for _, field in reversed(_walk(problem)) if field), None)
    text = " ".join(field.description.split()) if field and field.description else None
    return f" ({text[0].lower()}{text[1:].removesuffix('.')})" if text else ""


def _known_fields(problem: ErrorDetails) -> str:
    fields = [field for _, field in _walk(problem)[:-1] if field]
    section = _section(fields[-1]) if fields else Recipe
    known = sorted(section.model_fields) if section else []
    close = difflib.get_close_matches(cut(str(problem["loc"][-1])), known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}known here: {', '.join(known)}"
