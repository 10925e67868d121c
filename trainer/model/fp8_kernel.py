"""Casts rows to FP8 on a GPU. In separate operations of torch the cast would read and write its input several times,
which takes longer than FP8 saves."""

import torch
import triton
import triton.language as tl

_LARGEST = tl.constexpr(torch.finfo(torch.float8_e4m3fn).max)
_SMALLEST_SCALE = tl.constexpr(torch.finfo(torch.float32).tiny)
_NARROW_ROW = 4096


@triton.jit
def _cast_row(matrix, values, scales, width, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    exact = tl.load(matrix + row * width + columns, mask=columns < width, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(exact)) / _LARGEST, _SMALLEST_SCALE)
    tl.store(values + row * width + columns, (exact / scale).to(tl.float8e4nv), mask=columns < width)
    tl.store(scales + row, scale)


def cast_rows_on_gpu(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values [rows, columns] in e4m3 and scales [rows, 1] of a contiguous matrix."""
    rows, width = matrix.shape
    values = torch.empty_like(matrix, dtype=torch.float8_e4m3fn)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=matrix.device)
    warps = 4 if width <= _NARROW_ROW else 16
    _cast_row[(rows,)](matrix, values, scales, width, block=triton.next_power_of_2(width), num_warps=warps)
    return values, scales
