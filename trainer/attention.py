"""Causal attention inside each document of a packed row, without a mask: the work is the sum of n^2, not T^2."""

from typing import Any

import torch
from transformers import AttentionInterface

NAME = "finetuned_documents"


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
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=q.shape[1] != k.shape[1]
        )
        for q, k, v in parts
    ]
    whole = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
    return whole.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend_documents)
