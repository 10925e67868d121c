"""Numbers of 8 bits with a scale for each block, row or matrix."""

import torch

from contract.model.quantisation import Quantisation
from contract.model.stored_weights import StoredWeight, block_of, block_sizes

Parts = dict[str, torch.Tensor]


def read(parts: Parts, stored: StoredWeight, quantisation: Quantisation) -> torch.Tensor:
    """(q - z) s in fp32. A scale is fp8's "weight_scale_inv" too, which multiplies in spite of its name (DeepSeek-V3:
    arXiv:2412.19437, section 3.3)."""
    weight, scale = parts["weight"], _scale(parts["main"])
    rows, columns = block_of(list(weight.shape), list(scale.shape), block_sizes(quantisation))
    values = weight.float()
    if "zeros" in parts:
        values = values - _spread(parts["zeros"].float(), weight, rows, columns)
    return values * _spread(scale, weight, rows, columns)


def _scale(stored: torch.Tensor) -> torch.Tensor:
    """In fp32; bytes are exponents of two (E8M0 of the OCP Microscaling Formats, version 1.0)."""
    return torch.exp2(stored.float() - 127) if stored.dtype == torch.uint8 else stored.float()


def _spread(scale: torch.Tensor, weight: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The scales [..., out / rows, in / columns], each repeated for its block; the last of a side may be smaller."""
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.dim() == 1:
        scale = scale[:, None]
    whole = scale.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
    return whole[..., : weight.shape[-2], : weight.shape[-1]]
