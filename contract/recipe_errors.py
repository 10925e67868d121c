"""Reads a recipe, and says what is wrong with one."""

from pydantic import ValidationError

from contract.failure import FailureCode, InputError
from contract.field_errors import MOST_ERRORS, problems
from contract.recipe import Recipe

MOST_PROBLEMS = 10


def read_recipe(body: bytes | str) -> Recipe:
    """The recipe in a JSON text. Raises InputError that names the first field at fault and tells of the first ten."""
    try:
        return Recipe.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> InputError:
    errors = error.errors(include_url=False)
    found = problems(Recipe, errors)
    first, *_ = found
    words = list(found.values())[:MOST_PROBLEMS]
    more = len(found) - len(words) + len(errors[MOST_ERRORS:])
    if more:
        words.append(f"and {more} more problems")
    return InputError(FailureCode.RECIPE_INVALID, "; ".join(words), first or None)
