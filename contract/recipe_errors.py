"""Parses a recipe, and describes what is wrong with an invalid one."""

from pydantic import ValidationError

from contract.failure import FailureCode, InputError
from contract.field_errors import MAX_ERRORS, describe_errors
from contract.json_objects import REPEATED, find_repeated_key
from contract.recipe import Recipe

MAX_PROBLEMS = 10


def parse_recipe(body: bytes | str) -> Recipe:
    """The recipe in a JSON text. Raises InputError, which names the first invalid field and describes the first ten."""
    try:
        recipe = Recipe.model_validate_json(body)
    except ValidationError as error:
        raise _invalid_recipe(error) from error
    if (path := find_repeated_key(body)) is not None:
        raise InputError(FailureCode.RECIPE_INVALID, f"{path}: {REPEATED}", path)
    return recipe


def _invalid_recipe(error: ValidationError) -> InputError:
    errors = error.errors(include_url=False)
    found = describe_errors(Recipe, errors)
    first, *_ = found
    words = list(found.values())[:MAX_PROBLEMS]
    more = len(found) - len(words) + len(errors[MAX_ERRORS:])
    if more:
        words.append(f"and {more} more problems")
    return InputError(FailureCode.RECIPE_INVALID, "; ".join(words), first or None)
