"""Causal attention inside each document of a packed row, without a mask: the work is the sum of n^2, not T^2."""

from typing import Any

import torch
from transformers import AttentionInterface

NAME = "finetuned_documents"

_FASTER_IN_FP32 = 256
"""Tokens. On a CPU, bf16 attention over a shorter document takes up to three times as long as fp32 (torch 2.13)."""


def attend_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: list[int],
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed row, in the form that transformers calls it.

    query is [1, heads, T, head_dim]; key and value may have fewer heads, each shared by a group of the query's.
    Returns [1, T, heads, head_dim]. `document_lengths` comes from the call of the backbone.
    """
    if attention_mask is not None or sliding_window is not None or unused.get("softcap") or unused.get("s_aux"):
        raise NotImplementedError("attention other than plain and causal, over packed documents")
    parts = zip(*(tensor.split(document_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attended = [_attend(q, k, v, scaling, dropout) for q, k, v in parts]
    whole = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
    return whole.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float
) -> torch.Tensor:
    dtype = query.dtype
    if query.device.type == "cpu" and query.shape[2] <= _FASTER_IN_FP32:
        # Autocast would have it in its own format after all.
        with torch.autocast("cpu", enabled=False):
            return _causal(query.float(), key.float(), value.float(), scaling, dropout).to(dtype)
    return _causal(query, key, value, scaling, dropout).to(dtype)


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, dropout: float
) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=True
    )


AttentionInterface.register(NAME, attend_documents)
