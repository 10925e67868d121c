"""Bytes of the trained parts on one device: the adapter, its gradients and the optimizer's state, all in fp32."""

from dataclasses import dataclass

from contract.recipe import Recipe
from estimate.adapter import TrainedParameters

_SMALLEST_IN_8_BITS = 4096
"""In elements; bitsandbytes keeps smaller tensors in fp32."""
_BLOCK = 256
_DEFAULT_STAGE = 2


@dataclass(frozen=True)
class StateBytes:
    adapter: float
    gradients: float
    optimizer: float


def zero_stage(recipe: Recipe) -> int | None:
    """The ZeRO stage; None without DeepSpeed."""
    if recipe.parallel.engine != "deepspeed":
        return None
    return _DEFAULT_STAGE if recipe.parallel.zero_stage is None else recipe.parallel.zero_stage


def state_bytes(recipe: Recipe, trained: TrainedParameters, ranks: int) -> StateBytes:
    """Shards what the engine shards: ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) the optimizer's state from stage
    1, the gradients from stage 2 and the weights in stage 3; FSDP all of them."""
    parameters = trained.parameters
    stage = 3 if recipe.parallel.engine == "fsdp" else zero_stage(recipe) or 0
    adapter = 4 * parameters / (ranks if stage == 3 else 1)
    gradients = 4 * parameters / (ranks if stage >= 2 else 1)
    optimizer = _moments(recipe, trained) / (ranks if stage >= 1 else 1)
    if recipe.parallel.engine == "deepspeed" and stage >= 1:
        optimizer += 4 * parameters / ranks  # its own copy of the parameters that it steps
    if recipe.parallel.offload_optimizer:
        optimizer = 0
    return StateBytes(adapter, gradients, optimizer)


def _moments(recipe: Recipe, trained: TrainedParameters) -> float:
    """Two moments per element (AdamW, arXiv:1711.05101); in 8 bits with a scale per block (arXiv:2110.02861)."""
    sizes = [size for tensors in trained.tensors.values() for size in tensors]
    if recipe.optimizer.type == "adamw":
        return 8 * sum(sizes)
    return sum(8 * size if size < _SMALLEST_IN_8_BITS else 2 * (size + 4 * size / _BLOCK) for size in sizes)
