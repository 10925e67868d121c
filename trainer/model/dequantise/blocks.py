"""Numbers of 4 bits from a table: MXFP4 and bitsandbytes' NF4 and FP4; and bitsandbytes' 8 bits."""

import json

import torch

from contract.model.quantisation import Quantisation
from contract.model.stored_weights import StoredWeight

Parts = dict[str, torch.Tensor]

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_INT8_RANGE = 127


def read_mxfp4(parts: Parts, stored: StoredWeight, _: Quantisation) -> torch.Tensor:
    """E2M1 numbers times two to the exponent of their block of 32 (OCP Microscaling Formats, version 1.0), as [experts,
    in, out]."""
    values = _looked_up(torch.tensor(_E2M1), parts["main"], low_first=True)
    exponents = parts["scales"].int() - 127
    return torch.ldexp(values, exponents[..., None]).flatten(-2).transpose(1, 2)


def read_nf4(parts: Parts, stored: StoredWeight, _: Quantisation) -> torch.Tensor:
    """Codes times the largest value of their block, which may be quantised once more, in 8 bits around an offset
    (Dettmers et al. 2023, arXiv:2305.14314)."""
    state = json.loads(bytes(next(part for name, part in parts.items() if name.startswith("quant_state")).tolist()))
    largest = parts["main"]
    if "nested_absmax" in parts:
        scales = parts["nested_absmax"].float().repeat_interleave(state["nested_blocksize"])[: len(largest)]
        largest = parts["nested_codes"].float()[largest.int()] * scales + state["nested_offset"]
    count = torch.Size(stored.shape).numel()
    values = _looked_up(parts["codes"].float(), parts["weight"].flatten(), low_first=False).flatten()[:count]
    return (values * largest.float().repeat_interleave(state["blocksize"])[:count]).reshape(stored.shape)


def read_int8(parts: Parts, _: StoredWeight, __: Quantisation) -> torch.Tensor:
    """Each row in 127ths of its largest value (LLM.int8(): Dettmers et al. 2022, arXiv:2208.07339)."""
    return parts["weight"].float() * (parts["main"].float() / _INT8_RANGE)[:, None]


def _looked_up(table: torch.Tensor, packed: torch.Tensor, *, low_first: bool) -> torch.Tensor:
    """The two numbers of each byte, [..., n] to [..., 2 n]."""
    low, high = packed & 0xF, packed >> 4
    return table[torch.stack((low, high) if low_first else (high, low), dim=-1).flatten(-2).int()]
