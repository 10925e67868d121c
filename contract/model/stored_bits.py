"""A base whose files are in 4 or 8 bits already is trained as one that `base_bits` has quantised."""

from typing import Literal

from contract.failure import FailureCode, InputError
from contract.formatting import format_value
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe


def with_stored_bits(recipe: Recipe, bits: Literal[4, 8] | None) -> Recipe:
    """The recipe with the bits in which its base is stored and trained; None for any other base.

    Raises InputError for a recipe that excludes a base in these bits.
    """
    if bits is None:
        return recipe
    stored = f"the model is stored in {bits} bits by bitsandbytes"
    if recipe.base_bits not in (None, bits):
        raise _refused("base_bits", f"base_bits: got {recipe.base_bits}; {stored}: leave it out")
    if recipe.adapter.init == "loftq":
        message = (
            f"adapter.init: got {format_value(recipe.adapter.init)}, which starts from what the weights lost in "
            f"quantisation; {stored}, without its original weights: give the original model with base_bits 4"
        )
        raise _refused("adapter.init", message)
    if recipe.base_bits == bits:
        return recipe
    try:
        return parse_recipe(recipe.model_copy(update={"base_bits": bits}).model_dump_json())
    except InputError as error:
        message = f"{error.failure.message}; {stored}, as with base_bits {bits}"
        raise _refused(error.failure.param, message) from error


def _refused(param: str | None, message: str) -> InputError:
    return InputError(FailureCode.RECIPE_INVALID, message, param)
