"""Causal attention within each document of a packed row, without a mask: the work is the sum of n^2, not T^2."""

import functools
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

NAME = "finetuned_documents"

_FASTER_IN_FP32 = 256
"""In tokens. On a CPU, bf16 attention over shorter documents takes up to three times as long as fp32 (torch 2.13)."""

_FASTER_ALONE = 1024
"""In tokens. On a GPU, from this mean length on, torch's kernel for one document is faster than the one for many: by a
third for 2 x 4096 tokens, and six times slower for 64 x 128 (H200, torch 2.11, 32 heads of 128)."""


@functools.cache
def _varlen_attn() -> tuple[Any, dict[str, bool]]:
    """torch's kernel for many documents, and its options for grouped heads; None before torch 2.11."""
    try:
        attend = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        return None, {}
    takes = inspect.signature(attend).parameters
    if not {"scale", "window_size"} <= takes.keys():
        return None, {}
    return attend, {"enable_gqa": True} if "enable_gqa" in takes else {}


@dataclass(frozen=True)
class DocumentBounds:
    """Boundaries of the documents in a packed row. An object, because a compiled layer is compiled again for each
    length of a list."""

    lengths: list[int]
    offsets: torch.Tensor
    """[documents + 1] int32: the start of each document, and the end of the last."""


def register() -> str:
    """Registers the attention with transformers. Returns its name there."""
    AttentionInterface.register(NAME, attend_documents)
    return NAME


@torch.compiler.disable(reason="it goes by the lengths of the documents")
def attend_documents(  # parameters: transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    documents: DocumentBounds,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one packed row, with the signature that transformers calls.

    query is [1, heads, T, head_dim]; key and value may have fewer heads, each shared by a group of the query's. Returns
    [1, T, heads, head_dim]. `documents` comes from the call of the backbone.
    """
    if attention_mask is not None or sliding_window is not None or unused.get("softcap") or unused.get("s_aux"):
        raise NotImplementedError("attention other than plain and causal, over packed documents")
    if _has_kernel_for_many(query, documents.lengths, dropout):
        return _attend_to_all(query, key, value, documents, scaling), None
    parts = zip(*(tensor.split(documents.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [_attend(q, k, v, scaling, dropout) for q, k, v in parts]
    whole = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
    return whole.transpose(1, 2).contiguous(), None


def _has_kernel_for_many(query: torch.Tensor, lengths: list[int], dropout: float) -> bool:
    """True if FlashAttention-2 can take all documents at once: in 16 bits, on an Ampere GPU or newer."""
    short = query.shape[2] < _FASTER_ALONE * len(lengths)
    if _varlen_attn()[0] is None or not query.is_cuda or not short or dropout > 0:
        return False
    halves = query.dtype in (torch.bfloat16, torch.float16)
    width = query.shape[-1]
    return halves and width % 8 == 0 and width <= 256 and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _attend_to_all(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: DocumentBounds, scaling: float | None
) -> torch.Tensor:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    longest, offsets = max(documents.lengths), documents.offsets
    attend, grouped = _varlen_attn()
    return attend(q, k, v, offsets, offsets, longest, longest, scale=scaling, window_size=(-1, 0), **grouped)[None]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float
) -> torch.Tensor:
    dtype = query.dtype
    if query.device.type == "cpu" and query.shape[2] <= _FASTER_IN_FP32:
        # Autocast would cast it back to its own format.
        with torch.autocast("cpu", enabled=False):
            return _causal(query.float(), key.float(), value.float(), scaling, dropout).to(dtype)
    return _causal(query, key, value, scaling, dropout).to(dtype)


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float
) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=True
    )
