"""What would make a recipe fit that does not: parts of a recipe to put in, each tried by estimating anew."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from contract.order import examples_per_step
from contract.recipe import Recipe

Patch = dict[str, Any]

_SHORTEST = 128


def changes_that_fit(recipe: Recipe, ranks: int, devices: int, fits: Callable[[Recipe], bool]) -> list[Patch]:
    """Of each of the changes below the gentlest after which it fits, in their order: what changes no loss comes first.
    `devices` is how many a machine has. Where none is enough by itself, as many of them together as it takes."""
    changes = list(_changes(recipe, ranks, devices))
    alone = [next((patch for patch in forms if _fits(recipe, patch, fits)), None) for forms in changes]
    if any(alone):
        return [patch for patch in alone if patch is not None]
    together: Patch = {}
    for forms in changes:
        for patch in forms:
            if _fits(recipe, _merge(together, patch), fits):
                return [_merge(together, patch)]
        if forms and _apply(recipe, _merge(together, forms[-1])) is not None:
            together = _merge(together, forms[-1])
    return []


def _changes(recipe: Recipe, ranks: int, devices: int) -> Iterator[list[Patch]]:
    """Ordered by what they cost: time, then exactness, then devices, then what is learned. Of each its forms, the
    gentlest first."""
    batch = {"gradient_accumulation_steps": None, "effective_batch_size": examples_per_step(recipe.batch, ranks)}
    if recipe.batch.micro_batch_size != "auto":
        yield [{"batch": {"micro_batch_size": size, **batch}} for size in _halves(recipe.batch.micro_batch_size, 1)]
    if not recipe.gradient_checkpointing:
        yield [{"gradient_checkpointing": True}]
    if recipe.base_bits != 4:
        yield [{"base_bits": 4}]
    if devices > 1 and recipe.resources.nodes == 1:
        yield [
            {"resources": {"gpus": devices}, "parallel": {"engine": "deepspeed", "zero_stage": stage}, "batch": batch}
            for stage in (2, 3)
            if (recipe.parallel.zero_stage or 0) < stage
        ]
    yield [{"batch": {"max_length": length}} for length in _halves(recipe.batch.max_length, _SHORTEST)]


def _halves(size: int, least: int) -> Iterator[int]:
    while size // 2 >= least:
        size //= 2
        yield size


def _fits(recipe: Recipe, patch: Patch, fits: Callable[[Recipe], bool]) -> bool:
    changed = _apply(recipe, patch)
    return changed is not None and fits(changed)


def _apply(recipe: Recipe, patch: Patch) -> Recipe | None:
    """None where the two do not go together."""
    try:
        return Recipe.model_validate(_merge(recipe.model_dump(mode="json"), patch))
    except ValidationError:
        return None


def _merge(into: Mapping[str, Any], patch: Patch) -> dict[str, Any]:
    merged = dict(into)
    for name, value in patch.items():
        before = merged.get(name)
        merged[name] = _merge(before, value) if isinstance(value, dict) and isinstance(before, dict) else value
    return merged
