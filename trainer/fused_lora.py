"""LoRA's part of a linear module and the base's own, differentiated as one.

PEFT's forward pass makes three tensors as large as the module's output (B A x, its multiple, the sum), and on a base in
bf16 each of them, and x, once more in fp32; autograd keeps x and A x. Here the product is added in place, and autograd
keeps the same two. Modules that read the same x, such as q, k and v, have one product with all of their A, and their
gradients of x are added up in place. On a base in bf16 the products are in bf16, as under autocast; A, B and their
gradients are in fp32.
"""

from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

_READ_THE_SAME = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Modules that their parent calls one after another with the same tensor."""


def fuse(model: torch.nn.Module) -> None:
    """Where there is nothing to LoRA but A and B: no dropout, no DoRA, no biases."""
    plain = {module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)}
    for parent in model.modules():
        children = dict(parent.named_children())
        for names in _READ_THE_SAME:
            _fuse([children[name] for name in names if children.get(name) in plain])
    for module in plain:
        if "forward" not in vars(module):
            _fuse([module])


def _is_plain(module: Linear) -> bool:
    (name,) = module.lora_A
    return (
        name not in module.lora_variant
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and module.lora_B[name].bias is None
        and type(module.base_layer) in (torch.nn.Linear, Conv1D)
    )


def _fuse(modules: Sequence[Linear]) -> None:
    together = _Together(modules)
    for module in modules:
        module.forward = MethodType(together.forward, module)


class _Together:
    """The first of the modules to be called computes the outputs of all; the others find theirs waiting."""

    def __init__(self, modules: Sequence[Linear]) -> None:
        self._modules = modules
        self._input: torch.Tensor | None = None
        self._waiting: dict[Linear, torch.Tensor] = {}

    def forward(self, module: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # DeepSpeed's stage 3 brings weights together when their module is called, and under autocast each product has
        # its own format. A module that is merged, or whose adapter is off, has no use for A and B.
        (name,) = module.lora_A
        divided = hasattr(module.lora_A[name].weight, "ds_id")
        if divided or torch.is_autocast_enabled(x.device.type) or module.disable_adapters or module.merged:
            return Linear.forward(module, x, *args, **kwargs)
        if x is not self._input or module not in self._waiting:
            outputs = _product(x, self._modules)
            self._input, self._waiting = x, dict(zip(self._modules, outputs, strict=True))
        output = self._waiting.pop(module)
        if not self._waiting:
            self._input = None
        return output


def _product(x: torch.Tensor, modules: Sequence[Linear]) -> tuple[torch.Tensor, ...]:
    (name,) = modules[0].lora_A
    a = [module.lora_A[name].weight for module in modules]
    b = [module.lora_B[name].weight for module in modules]
    bases = [_weight_and_bias(module.base_layer) for module in modules]
    return _Products.apply(x, [module.scaling[name] for module in modules], bases, *a, *b)


def _weight_and_bias(base: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of W x + bias. GPT-2 has its W transposed."""
    return base.weight.T if isinstance(base, Conv1D) else base.weight, base.bias


class _Products(torch.autograd.Function):
    """W x + bias + s B A x of each module, for x [..., in], W [out, in], A [r, in] and B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scalings: Sequence[float],
        bases: Sequence[tuple[torch.Tensor, torch.Tensor | None]],
        *adapters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        a, b = adapters[: len(bases)], adapters[len(bases) :]
        rows = x.flatten(0, -2)
        inner = rows @ torch.cat(a).to(x.dtype).T
        outputs = []
        for (weight, bias), each, up, scaling in zip(bases, _by_module(inner, a), b, scalings, strict=True):
            y = F.linear(rows, weight, bias).addmm_(each, up.to(x.dtype).T, alpha=scaling)
            outputs.append(y.view(*x.shape[:-1], -1))
        ctx.save_for_backward(rows, inner, *(weight for weight, _ in bases), *adapters)
        ctx.scalings = scalings
        ctx.shape = x.shape
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        count = len(upstream)
        rows, inner, *weights = ctx.saved_tensors
        bases, a, b = weights[:count], weights[count : 2 * count], weights[2 * count :]
        of_y = [gradient.flatten(0, -2) for gradient in upstream]
        of_b = [
            (gradient.T @ each).mul_(scaling).to(up.dtype)
            for gradient, each, up, scaling in zip(of_y, _by_module(inner, a), b, ctx.scalings, strict=True)
        ]
        of_inner = torch.cat(
            [
                (gradient @ up.to(gradient.dtype)).mul_(scaling)
                for gradient, up, scaling in zip(of_y, b, ctx.scalings, strict=True)
            ],
            dim=1,
        )
        of_a = (of_inner.T @ rows).to(a[0].dtype).split([len(each) for each in a])
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_inner @ torch.cat(a).to(of_inner.dtype)
            for gradient, weight in zip(of_y, bases, strict=True):
                of_x.addmm_(gradient, weight)
            of_x = of_x.view(ctx.shape)
        return of_x, None, None, *of_a, *of_b


def _by_module(inner: torch.Tensor, a: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return inner.split([len(each) for each in a], dim=1)
