"""Bytes that belong neither to the model nor to its training, but that a device must hold."""

from contract.recipe import Recipe
from estimate.inputs import DeviceKind, SizedModel
from estimate.states import zero_stage
from estimate.weights import BYTES_PER_PARAMETER, largest_layer_parameters, parameters_outside_layers

_CUDA_CONTEXT = 600 * 2**20
"""The driver's context, torch's kernels and cuBLAS' workspace. From NVIDIA's and torch's documentation, not measured
here. torch does not allocate it, so torch.cuda.max_memory_allocated does not count it."""
_PROCESS = 410 * 2**20
"""Resident memory of a trainer on a CPU before it has a model: Python, torch, transformers, PEFT."""
_HEAP = 0.45
"""On a CPU malloc keeps what a step has freed, in pieces that do not fit later requests: this fraction of what the
activations would take without gradient checkpointing, with and without it. Measured on glibc 2.36 with
benchmarks/plans.py, on llamas of 30 M and 110 M and rows of 600 to 2500 tokens: 0.3 to 0.47."""
_REDUCE_BUCKET = 500_000_000
"""In elements: the default of DeepSpeed's reduce_bucket_size, which trainer/engines/zero.py does not set."""


def overhead_bytes(on_gpu: bool, freed: float) -> float:
    """Overhead of the process. `freed` are the activations of a step without gradient checkpointing."""
    return _CUDA_CONTEXT if on_gpu else _PROCESS + _HEAP * freed


def communication_bytes(recipe: Recipe, kind: DeviceKind, model: SizedModel, ranks: int) -> float:
    """What an engine holds to communicate gradients and weights. DDP: a bucket view of the gradients, which are already
    counted. DeepSpeed: a bucket of fixed size. Sharded weights: the layers that are gathered."""
    held = 0.0
    stage = zero_stage(recipe)
    if stage is not None and stage >= 1:
        # A CPU allocates pages on the first write, and only as much is written as there are gradients.
        held += 4 * (_REDUCE_BUCKET if kind.on_gpu else min(_REDUCE_BUCKET, model.trained.parameters))
    if (recipe.parallel.engine == "fsdp" or stage == 3) and ranks > 1:
        # One layer in use and the next on its way. Parameters outside the layers stay gathered throughout a pass.
        held += BYTES_PER_PARAMETER[kind.precision] * (
            2 * largest_layer_parameters(model.shapes) + parameters_outside_layers(model.shapes)
        )
    return held
