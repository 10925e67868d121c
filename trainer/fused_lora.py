"""LoRA's part of a linear module, added to the base's where that lies.

PEFT's forward pass makes three tensors as large as the module's output (B A x, its multiple, the sum), and on a base in
bf16 each of them, and x, once more in fp32; autograd keeps x and A x. Here the product is added in place, and autograd
keeps the same two. On a base in bf16 the products are in bf16, as under autocast; A, B and their gradients are in fp32.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear


def fuse(model: torch.nn.Module) -> None:
    """Where there is nothing to LoRA but A and B: no dropout, no DoRA, no biases."""
    for module in model.modules():
        if isinstance(module, Linear) and _is_plain(module):
            module.forward = MethodType(_forward, module)


def _is_plain(module: Linear) -> bool:
    (name,) = module.lora_A
    return (
        name not in module.lora_variant
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and module.lora_B[name].bias is None
    )


def _forward(module: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    (name,) = module.lora_A
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    # DeepSpeed's stage 3 brings weights together when their module is called, and under autocast each product has its
    # own format. A module that is merged, or whose adapter is off, has no use for A and B.
    if hasattr(a, "ds_id") or torch.is_autocast_enabled(x.device.type) or module.disable_adapters or module.merged:
        return Linear.forward(module, x, *args, **kwargs)
    return _AddProduct.apply(module.base_layer(x, *args, **kwargs), x, a, b, module.scaling[name])


class _AddProduct(torch.autograd.Function):
    """y + s B A x for y [..., out], x [..., in], A [r, in], B [out, r]; y is changed in place."""

    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        rows = x.flatten(0, -2).to(y.dtype)
        inner = rows @ a.to(y.dtype).T
        y.view(-1, y.shape[-1]).addmm_(inner, b.to(y.dtype).T, alpha=scaling)
        ctx.mark_dirty(y)
        ctx.save_for_backward(rows, inner, a, b)
        ctx.scaling = scaling
        return y

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, a, b = ctx.saved_tensors
        (gradient,) = upstream
        of_y = gradient.flatten(0, -2)
        of_inner = (of_y @ b.to(of_y.dtype)).mul_(ctx.scaling)
        of_x = (of_inner @ a.to(of_y.dtype)).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[1] else None
        of_a = (of_inner.T @ rows).to(a.dtype)
        of_b = (of_y.T @ inner).mul_(ctx.scaling).to(b.dtype)
        return gradient, of_x, of_a, of_b, None
