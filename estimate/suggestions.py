"""Changes that make a recipe fit: parts of a recipe to merge into it, each tried by estimating again."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from contract.order import examples_per_step
from contract.recipe import Recipe

Patch = dict[str, Any]

_SHORTEST = 128


def suggestions_that_fit(
    recipe: Recipe, ranks: int, devices: int, fits: Callable[[Recipe], bool], *, keeps_bits: bool = False
) -> list[Patch]:
    """For each candidate below, the mildest variant after which the recipe fits; changes that do not affect the loss
    come first. `devices` is the number on a machine. If no single one is enough, one combination of as many as
    necessary. A base that is loaded as it is stored `keeps_bits`."""
    candidates = [
        variants
        for variants in _candidates(recipe, ranks, devices)
        if not (keeps_bits and {"base_bits": 4} in variants)
    ]
    alone = [next((patch for patch in variants if _fits(recipe, patch, fits)), None) for variants in candidates]
    if any(alone):
        return [patch for patch in alone if patch is not None]
    together: Patch = {}
    for variants in candidates:
        for patch in variants:
            if _fits(recipe, _merge(together, patch), fits):
                return [_merge(together, patch)]
        if variants and _apply(recipe, _merge(together, variants[-1])) is not None:
            together = _merge(together, variants[-1])
    return []


def _candidates(recipe: Recipe, ranks: int, devices: int) -> Iterator[list[Patch]]:
    """Candidates in order of cost: time, then exactness, then devices, then what is learned. Each has its variants,
    mildest first."""
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
    """None if the two contradict each other."""
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
