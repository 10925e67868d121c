"""Numbers packed in words of 32 bits: GPTQ, AWQ and compressed-tensors."""

import torch

from contract.model.quantisation import Quantisation, gptq_format
from contract.model.stored_weights import StoredWeight

Parts = dict[str, torch.Tensor]

_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Place in the word of each of 8 columns: AutoAWQ's kernels take the even ones first."""


def read_gptq(parts: Parts, stored: StoredWeight, quantisation: Quantisation) -> torch.Tensor:
    """(q - z) s in fp32, as [out, in] (Frantar et al. 2022, arXiv:2210.17323).

    AutoGPTQ stores z - 1, "gptq_v2" z itself. Each input has a group, in their order if there is no table of them.
    """
    values = unpack(parts["main"].T, stored.bits)
    zeros, scales = unpack(parts["zeros"], stored.bits), parts["scales"].float()
    if gptq_format(quantisation.settings) == "gptq":
        zeros = (zeros + 1) & (2**stored.bits - 1)
    groups = parts["groups"].long() if "groups" in parts else _groups(stored.shape[1], len(scales))
    return (values - zeros[groups].T) * scales[groups].T


def read_awq(parts: Parts, stored: StoredWeight, _: Quantisation) -> torch.Tensor:
    """(q - z) s in fp32, as [out, in] (Lin et al. 2023, arXiv:2306.00978)."""
    values, zeros = (_in_order(unpack(parts[name], stored.bits)) for name in ("main", "zeros"))
    scales = parts["scales"].float()
    groups = _groups(stored.shape[1], len(scales))
    return ((values - zeros[groups]) * scales[groups]).T


def read_compressed(parts: Parts, stored: StoredWeight, _: Quantisation) -> torch.Tensor:
    """(q - z) s in fp32. Numbers are stored with half their range added."""
    rows, columns = stored.shape
    values = unpack(parts["main"], stored.bits)[:, :columns]
    scales = parts["scales"].float()
    groups = parts["groups"].long() if "groups" in parts else _groups(columns, scales.shape[-1])
    if "zeros" in parts:
        zeros = unpack(parts["zeros"].T, stored.bits).T[:rows]
        values = values - zeros[:, groups]
    else:
        values = values - 2 ** (stored.bits - 1)
    return values * scales[:, groups]


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The numbers in words [rows, n] of int32, from the lowest bits: [rows, n * 32 / bits]."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    return ((words[..., None] >> shifts) & (2**bits - 1)).flatten(-2)


def _in_order(values: torch.Tensor) -> torch.Tensor:
    return values.unflatten(-1, (-1, 8))[..., _AWQ_ORDER].flatten(-2)


def _groups(columns: int, groups: int) -> torch.Tensor:
    return torch.arange(columns) // (columns // groups)
