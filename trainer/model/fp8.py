"""The frozen base's linear modules with their products in FP8 (e4m3: Micikevicius et al. 2022, arXiv:2209.05433).

Each row of both factors has its own scale, by which its largest value becomes e4m3's. Weights are cast once, inputs and
gradients whenever they are multiplied. Gradients are in e4m3 too: with a scale for each token they need its precision
more than e5m2's range. Bias, output and everything beside the products stay in the format of the input.

W is kept twice, by rows for y = x W^T and by columns for dx = dy W, so it takes as much memory as in bf16. The scales
of its rows lie along the dimension that dx sums over, and GPUs want that dimension contiguous in both factors: a
transposed copy is needed in any case, and one with its own scales needs nothing folded into dy.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig

from contract.failure import FailureCode, InputError
from contract.model.fp8_modules import takes_fp8
from trainer.model.kernels import is_installed

_FORMAT = torch.float8_e4m3fn
_LARGEST = torch.finfo(_FORMAT).max
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""Scale of a row of zeros."""
_has_kernels = functools.cache(is_installed)
"""Cached: it looks for files, and a pass through the model calls it hundreds of times."""


@dataclass(frozen=True)
class ScaledRows:
    """A matrix as `values` [rows, columns] in e4m3 times `scales` [rows, 1] in fp32."""

    values: torch.Tensor
    scales: torch.Tensor


@dataclass(frozen=True)
class Fp8Weight:
    """W [out, in]."""

    rows: ScaledRows
    """W."""
    columns: ScaledRows
    """W^T."""

    def output(self, x: ScaledRows, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
        """x W^T + bias, for x [N, in]."""
        return _product(x, self.rows, bias, dtype)

    def input_gradient(self, of_y: torch.Tensor) -> torch.Tensor:
        """dy W, for dy [N, out]."""
        return _product(cast_rows(of_y), self.columns, None, of_y.dtype)


class Fp8Linear(torch.nn.Linear):
    weight: torch.nn.Parameter

    def convert(self) -> None:
        """Casts the weight of what was a plain linear module until now."""
        rows, columns = cast_rows(self.weight.detach()), cast_rows(self.weight.detach().T)
        self.weight = torch.nn.Parameter(rows.values, requires_grad=False)
        self.register_buffer("scales", rows.scales, persistent=False)
        self.register_buffer("transposed", columns.values, persistent=False)
        self.register_buffer("transposed_scales", columns.scales, persistent=False)

    def fp8_weight(self) -> Fp8Weight:
        return Fp8Weight(ScaledRows(self.weight, self.scales), ScaledRows(self.transposed, self.transposed_scales))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Output.apply(x, self.fp8_weight(), self.bias)


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Fp8Weight, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.weight, ctx.shape = weight, x.shape
        y = weight.output(cast_rows(x.reshape(-1, x.shape[-1])), bias, x.dtype)
        # Not a view: autograd does not let the model change a view in place.
        return y.resize_(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (of_y,) = upstream
        return ctx.weight.input_gradient(of_y.reshape(-1, of_y.shape[-1])).view(ctx.shape), None, None


def linear_modules(base: Any) -> list[torch.nn.Linear]:
    """The modules of a base model that multiply in FP8. Raises InputError if it has none."""
    found = [
        module
        for name, module in base.named_modules()
        if type(module) is torch.nn.Linear and takes_fp8(name, module.weight.shape)
    ]
    if not found:
        kind = base.config.model_type
        message = f'precision: got "fp8", and no linear module of this {kind} can multiply in it; use "bf16"'
        raise InputError(FailureCode.MODEL_UNSUPPORTED, message, "precision")
    return found


def convert(modules: list[torch.nn.Linear], adapter: LoraConfig) -> None:
    """Casts the weights of modules that have an adapter on them by now. Those that are trained stay as they are.

    Raises InputError for an earlier adapter that is DoRA; the recipe itself excludes a new one.
    """
    if modules and adapter.use_dora:
        param = "adapter.start_from"
        message = f'{param}: DoRA computes with whole weights; use precision "bf16", or another adapter'
        raise InputError(FailureCode.PRECISION_UNAVAILABLE, message, param)
    for module in modules:
        if not module.weight.requires_grad:
            module.__class__ = Fp8Linear
            module.convert()


def cast_rows(matrix: torch.Tensor) -> ScaledRows:
    """`matrix` [rows, columns] in e4m3, rounded to the nearest."""
    matrix = matrix.contiguous()
    if matrix.is_cuda and len(matrix) and _has_kernels():
        # One kernel that reads each value once. Imported here: it imports Triton, which only CUDA builds of torch have.
        from trainer.model.fp8_kernel import cast_rows_on_gpu

        return ScaledRows(*cast_rows_on_gpu(matrix))
    exact = matrix.float()
    scales = (exact.abs().amax(dim=1, keepdim=True) / _LARGEST).clamp(min=_SMALLEST_SCALE)
    return ScaledRows((exact / scales).to(_FORMAT), scales)


def _product(a: ScaledRows, b: ScaledRows, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """a b^T + bias in `dtype`, which a GPU has for bf16 alone."""
    if not len(a.values):
        return b.scales.new_zeros((0, len(b.values)), dtype=dtype)
    return torch._scaled_mm(
        a.values,
        b.values.T,
        scale_a=a.scales,
        scale_b=b.scales.T,
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )
