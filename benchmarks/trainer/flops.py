"""What a step's arithmetic comes to, and what a GPU could do. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.model.stacked_experts import is_routed_expert
from contract.model.target_modules import is_router

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 operations a second of the SXM boards, and of the others as their makers state them, by a part of the
name that CUDA gives; an H100 PCIe has fewer, 756e12."""


@dataclass(frozen=True)
class Size:
    body: int
    """Numbers in the weight matrices of all layers that a token goes through."""
    head: int
    adapter: int
    layers: int
    width: int
    """Heads times head_dim."""


def size_of(shapes: Mapping[str, Sequence[int]], layers: int, width: int, r: int, active_experts: float = 1.0) -> Size:
    """Of a model whose every matrix but embeddings, head, routed experts and routers has an adapter of rank r. A token
    goes through the share `active_experts` of the routed experts."""
    body, adapter = 0.0, 0
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if ".layers." not in name or len(shape) < 2 or name.endswith("bias"):
            continue
        routed = is_routed_expert(module)
        body += math.prod(shape) * (active_experts if routed else 1)
        if not routed and not is_router(module):
            adapter += r * sum(shape)
    head = next(shape for name, shape in shapes.items() if name.endswith(("lm_head.weight", "embed_tokens.weight")))
    return Size(body=round(body), head=head[0] * head[1], adapter=adapter, layers=layers, width=width)


def operations(size: Size, real: int, supervised: int, squares: int) -> int:
    """Floating point operations that no way of training can leave out: 6 N T of the usual formula, with the weights'
    own gradients left out of a frozen base.

    4 N_body T (forward 2, gradient of the activations 2) + 4 N_head S (the S supervised tokens alone) + 6 N_adapter T
    + 6 L w sum(n^2) for causal attention inside documents of n tokens (forward 2 n^2 w, backward twice that; half of a
    full square each). Neither padding nor what checkpointing makes anew counts.
    """
    attention = 6 * size.layers * size.width * squares
    return 4 * size.body * real + 4 * size.head * supervised + 6 * size.adapter * real + attention


def peak_of(gpu: str) -> float | None:
    """Operations a second in bf16; None for a GPU that is not listed."""
    return next((peak for name, peak in PEAKS.items() if name in gpu), None)
