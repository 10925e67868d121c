"""Which modules of a base model multiply in FP8, for the trainer and for estimates alike."""

from collections.abc import Sequence

from contract.model.stacked_experts import is_routed_expert
from contract.model.target_modules import is_router

_MULTIPLE = 16
"""GPUs take FP8 matrices whose sides are multiples of this."""


def takes_fp8(module: str, shape: Sequence[int]) -> bool:
    """Whether a linear module of a loaded model multiplies in FP8. Embeddings, the output head, routed experts and
    their routers never do."""
    return (
        len(shape) == 2
        and all(size % _MULTIPLE == 0 for size in shape)
        and any(part.isdigit() for part in module.split("."))
        and not is_routed_expert(module)
        and not is_router(module)
    )
