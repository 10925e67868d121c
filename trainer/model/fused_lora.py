"""A linear module and its LoRA, differentiated as one function.

PEFT's forward pass makes three tensors as large as the module's output (B A x, its multiple, the sum). On a base in
bf16 it makes each of them, and x, in fp32 as well. Autograd keeps x and A x. Here the product is added in place, and
autograd keeps the same two. Modules that read the same x, such as q, k and v, share one product with all their A, and
their gradients of x are summed in place. On a base in bf16 the products are in bf16, as under autocast; A, B and their
gradients are in fp32.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D

from trainer.model.fp8 import Fp8Linear, Fp8Weight, cast_rows

_READ_THE_SAME = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Modules that their parent calls one after another with the same tensor."""


def fuse(model: torch.nn.Module) -> None:
    """Fuses modules in which only A and B are trained, without dropout, DoRA or biases."""
    plain = {module for module in model.modules() if isinstance(module, Linear) and _is_plain(module)}
    for parent in model.modules():
        children = dict(parent.named_children())
        for names in _READ_THE_SAME:
            _fuse([children[name] for name in names if children.get(name) in plain])
    for module in plain:
        if type(module) is Linear:
            _fuse([module])


def _is_plain(module: Linear) -> bool:
    (name,) = module.lora_A
    return (
        name not in module.lora_variant
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and module.lora_B[name].bias is None
        and type(module.base_layer) in (torch.nn.Linear, Conv1D)
        and not any(parameter.requires_grad for parameter in module.base_layer.parameters())
    )


def _fuse(modules: Sequence[Linear]) -> None:
    together = _FusedGroup(modules)
    for module in modules:
        module.__class__ = FusedLinear
        module.together = together


class FusedLinear(Linear):
    """A subclass, and not a method set on each module, which would be compiled for each again."""

    together: "_FusedGroup"

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # DeepSpeed's stage 3 gathers weights when their module is called, and under autocast each product has its own
        # format. A merged module, or one whose adapter is off, does not use A and B.
        (name,) = self.lora_A
        divided = hasattr(self.lora_A[name].weight, "ds_id")
        if divided or torch.is_autocast_enabled(x.device.type) or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        if torch.compiler.is_compiling():
            return self._written_out(x, name)
        return self.together.output(self, x, name)

    def _written_out(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """The same for a compiler, which finds the gradients and fuses operations itself."""
        weight, bias = _weight_and_bias(self.base_layer)
        a = (self.scaling[name] * self.lora_A[name].weight).to(x.dtype)
        b = self.lora_B[name].weight.to(x.dtype)
        return F.linear(x, weight, bias) + F.linear(F.linear(x, a), b)


class _FusedGroup:
    """The first module that is called computes the outputs of all; the others fetch theirs."""

    def __init__(self, modules: Sequence[Linear]) -> None:
        self._modules = modules
        self._copies: _Copies | None = None
        self._input: torch.Tensor | None = None
        self._waiting: dict[Linear, torch.Tensor] = {}

    def output(self, module: Linear, x: torch.Tensor, name: str) -> torch.Tensor:
        if x is not self._input or module not in self._waiting:
            self._input, self._waiting = x, dict(zip(self._modules, self._outputs(x, name), strict=True))
        output = self._waiting.pop(module)
        if not self._waiting:
            self._input = None
        return output

    def _outputs(self, x: torch.Tensor, name: str) -> tuple[torch.Tensor, ...]:
        a = [module.lora_A[name].weight for module in self._modules]
        b = [module.lora_B[name].weight for module in self._modules]
        if self._copies is None or self._copies.all_a.dtype != x.dtype or self._copies.all_a.device != x.device:
            self._copies = _Copies(a, b, [module.scaling[name] for module in self._modules], x)
        self._copies.renew(a, b)
        bases = [_weight_and_bias(module.base_layer) for module in self._modules]
        return _Products.apply(x, self._copies, bases, *a, *b)


class _Copies:
    """s A of all modules [r_1 + r_2 + ..., in] and each B, in the format of the base."""

    def __init__(
        self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor], scalings: Sequence[float], like: torch.Tensor
    ) -> None:
        self.ranks = [len(each) for each in a]
        self.all_a = like.new_empty(sum(self.ranks), like.shape[-1])
        self.b = [like.new_empty(each.shape) for each in b]
        self._a = self.all_a.split(self.ranks)
        self.scaling = torch.tensor(scalings).repeat_interleave(torch.tensor(self.ranks))[:, None].to(like)

    @torch.no_grad()
    def renew(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> None:
        torch._foreach_copy_([*self._a, *self.b], [*a, *b])
        self.all_a.mul_(self.scaling)


def _weight_and_bias(base: torch.nn.Module) -> tuple[torch.Tensor | Fp8Weight, torch.Tensor | None]:
    """W and bias of W x + bias. GPT-2 has its W transposed."""
    if isinstance(base, Fp8Linear):
        return base.fp8_weight(), base.bias
    return base.weight.T if isinstance(base, Conv1D) else base.weight, base.bias


def _base_outputs(
    rows: torch.Tensor, bases: Sequence[tuple[torch.Tensor | Fp8Weight, torch.Tensor | None]]
) -> Iterator[torch.Tensor]:
    """W x + bias of each. Those in FP8 share one cast of x."""
    in_fp8 = None
    for weight, bias in bases:
        if isinstance(weight, Fp8Weight):
            in_fp8 = cast_rows(rows) if in_fp8 is None else in_fp8
            yield weight.output(in_fp8, bias, rows.dtype)
        else:
            yield F.linear(rows, weight, bias)


class _Products(torch.autograd.Function):
    """W x + bias + s B A x of each module, for x [..., in], W [out, in], A [r, in] and B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        copies: _Copies,
        bases: Sequence[tuple[torch.Tensor | Fp8Weight, torch.Tensor | None]],
        *adapters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        inner = rows @ copies.all_a.T
        outputs = []
        for y, each, b in zip(_base_outputs(rows, bases), inner.split(copies.ranks, dim=1), copies.b, strict=True):
            y.addmm_(each, b.T)
            # Not a view: autograd does not let the model change a view in place, as Llama 4 does.
            outputs.append(y.resize_(*x.shape[:-1], y.shape[-1]))
        ctx.save_for_backward(rows, inner)
        ctx.weights = [weight for weight, _ in bases]
        ctx.copies = copies
        ctx.shape = x.shape
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        rows, inner = ctx.saved_tensors
        copies: _Copies = ctx.copies
        of_y = [gradient.reshape(len(rows), -1) for gradient in upstream]
        of_each = [gradient @ b for gradient, b in zip(of_y, copies.b, strict=True)]
        of_inner = of_each[0] if len(of_each) == 1 else torch.cat(of_each, dim=1)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_inner @ copies.all_a
            for gradient, weight in zip(of_y, ctx.weights, strict=True):
                if isinstance(weight, Fp8Weight):
                    of_x += weight.input_gradient(gradient)
                else:
                    of_x.addmm_(gradient, weight)
            of_x = of_x.view(ctx.shape)
        of_a = (of_inner.T @ rows).mul_(copies.scaling).float().split(copies.ranks)
        of_b = [
            (gradient.T @ each).float() for gradient, each in zip(of_y, inner.split(copies.ranks, dim=1), strict=True)
        ]
        return of_x, None, None, *of_a, *of_b
