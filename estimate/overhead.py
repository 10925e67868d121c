"""Bytes that neither the model nor its training are, and that a device must hold all the same."""

from contract.model.loaded_names import Shapes
from contract.recipe import Recipe
from estimate.adapter import Trained
from estimate.states import zero_stage
from estimate.weights import BYTES, largest_layer, outside_layers

_CUDA_CONTEXT = 600 * 2**20
"""The driver's context, the kernels of torch and cuBLAS' workspace. From what NVIDIA's and torch's documents say, not
measured here; no allocation of torch's, so that torch.cuda.max_memory_allocated does not count it."""
_PROCESS = 410 * 2**20
"""Resident in a trainer on a CPU before it has a model: Python, torch, transformers, PEFT."""
_HEAP = 0.45
"""On a CPU malloc keeps what a step has freed, in pieces that do not fit the next ones: so much of what the activations
would take without gradient checkpointing, also with it. Measured on glibc 2.36 with benchmarks/plans.py, on llamas of
30 M and 110 M and rows of 600 to 2500 tokens: 0.3 to 0.47."""
_REDUCE_BUCKET = 500_000_000
"""Numbers; DeepSpeed's reduce_bucket_size where its configuration leaves it out, as trainer/engines/zero.py does."""


def overhead_bytes(on_gpu: bool, freed: float) -> float:
    """Of the process. `freed` are the activations of a step without gradient checkpointing."""
    return _CUDA_CONTEXT if on_gpu else _PROCESS + _HEAP * freed


def exchange_bytes(recipe: Recipe, precision: str, on_gpu: bool, shapes: Shapes, trained: Trained, ranks: int) -> float:
    """What an engine holds to exchange gradients and weights: DDP a bucket view of the gradients, which are counted
    already; DeepSpeed a bucket of its own, whatever is in it; divided weights the layers that are gathered."""
    held = 0.0
    stage = zero_stage(recipe)
    if stage is not None and stage >= 1:
        # A CPU gives pages when they are written to, and no more is written than there are gradients.
        held += 4 * (_REDUCE_BUCKET if on_gpu else min(_REDUCE_BUCKET, trained.parameters))
    if (recipe.parallel.engine == "fsdp" or stage == 3) and ranks > 1:
        # One layer at work and the next one on its way; what stands outside the layers stays whole in a pass.
        held += BYTES[precision] * (2 * largest_layer(shapes) + outside_layers(shapes))
    return held
