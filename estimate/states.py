"""Bytes of what is trained on one device: the adapter, its gradients, and the optimizer's state; all in fp32."""

from dataclasses import dataclass

from contract.recipe import Recipe
from estimate.adapter import Trained

_SMALLEST_IN_8_BITS = 4096
"""Numbers; bitsandbytes leaves smaller tensors in fp32."""
_BLOCK = 256
_DEFAULT_STAGE = 2


@dataclass(frozen=True)
class States:
    adapter: float
    gradients: float
    optimizer: float


def zero_stage(recipe: Recipe) -> int | None:
    """None without DeepSpeed."""
    if recipe.parallel.engine != "deepspeed":
        return None
    return _DEFAULT_STAGE if recipe.parallel.zero_stage is None else recipe.parallel.zero_stage


def states(recipe: Recipe, trained: Trained, ranks: int) -> States:
    """What the engine divides is divided: ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) the optimizer's state from
    stage 1, the gradients from 2, the weights in 3; FSDP all of them."""
    numbers = trained.parameters
    stage = 3 if recipe.parallel.engine == "fsdp" else zero_stage(recipe) or 0
    adapter = 4 * numbers / (ranks if stage == 3 else 1)
    gradients = 4 * numbers / (ranks if stage >= 2 else 1)
    optimizer = _moments(recipe, trained) / (ranks if stage >= 1 else 1)
    if recipe.parallel.engine == "deepspeed" and stage >= 1:
        optimizer += 4 * numbers / ranks  # its own copy of what it steps
    if recipe.parallel.offload_optimizer:
        optimizer = 0
    return States(adapter, gradients, optimizer)


def _moments(recipe: Recipe, trained: Trained) -> float:
    """Two for each number (AdamW, arXiv:1711.05101); in 8 bits with a scale for each block (arXiv:2110.02861)."""
    sizes = [size for tensors in trained.tensors.values() for size in tensors]
    if recipe.optimizer.type == "adamw":
        return 8 * sum(sizes)
    return sum(8 * size if size < _SMALLEST_IN_8_BITS else 2 * (size + 4 * size / _BLOCK) for size in sizes)
