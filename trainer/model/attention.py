"""Causal attention within each document of a packed row: the work is the sum of n^2, not T^2, and that of n w in a
window of w tokens."""

import functools
import importlib
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "finetuned_documents"
_NAME_WITH_REACH = "finetuned_documents_reach"
"""The same for models with windows or chunks. transformers then looks for the documents itself, which waits for a
GPU."""

_FASTER_IN_FP32 = 256
"""In tokens. On a CPU, bf16 attention over shorter documents takes up to three times as long as fp32 (torch 2.13)."""

_FASTER_ALONE = 1024
"""In tokens. On a GPU, from this mean length on, torch's kernel for one document is faster than the one for many: by a
third for 2 x 4096 tokens, and six times slower for 64 x 128 (H200, torch 2.11, 32 heads of 128)."""

_LEAST_BLOCK = 128
"""In tokens. Queries of a long document that are attended to at once, if its window is smaller than that."""


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
    shared: list[tuple[int, int]] | None = None
    """For each document, where in the row its first tokens lie if it shares them with an earlier one, and how many they
    are. They are not among its `lengths`."""
    _chunked: dict[int, "DocumentBounds"] = field(default_factory=dict, compare=False)

    def in_chunks(self, size: int) -> "DocumentBounds":
        """Each document cut into chunks of `size` tokens, of which no token sees another chunk."""
        if self.shared is not None:
            raise NotImplementedError("chunks in documents that share their beginning")
        if size not in self._chunked:
            lengths = [min(size, n - start) for n in self.lengths for start in range(0, n, size)]
            offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=self.offsets.device)
            self._chunked[size] = DocumentBounds(lengths, offsets)
        return self._chunked[size]

    @functools.cached_property
    def longest(self) -> int:
        """Of the documents, with what they share."""
        shared = self.shared or [(0, 0)] * len(self.lengths)
        return max(length + common for length, (_, common) in zip(self.lengths, shared, strict=True))

    @functools.cached_property
    def keys(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The places in the row of all documents' tokens, one document after another [K], and each document's start
        among them [documents + 1] int32; None if they are the row itself."""
        if self.shared is None:
            return None
        places: list[int] = []
        starts = [0]
        own = itertools.accumulate(self.lengths, initial=0)
        for begin, length, (before, common) in zip(own, self.lengths, self.shared, strict=False):
            places += [*range(before, before + common), *range(begin, begin + length)]
            starts.append(len(places))
        device = self.offsets.device
        return torch.tensor(places, device=device), torch.tensor(starts, dtype=torch.int32, device=device)


@dataclass(frozen=True)
class Reach:
    """How far back a token sees: this is what a layer gets in place of a mask, if not everything before it."""

    tokens: int
    chunked: bool
    """Whether it sees its own chunk of so many tokens, and not the last so many."""


@dataclass(frozen=True)
class _Scores:
    """How the products of queries and keys become weights."""

    scaling: float | None
    dropout: float
    cap: float | None
    """tanh holds them within plus and minus this."""
    sinks: torch.Tensor | None
    """[heads] One more score for each token, of a key without a value."""


def register(config: Any) -> str:
    """Registers the attention with transformers. Returns its name there, for a model with this configuration."""
    AttentionInterface.register(NAME, attend_documents)
    AttentionInterface.register(_NAME_WITH_REACH, attend_documents)
    AttentionMaskInterface.register(_NAME_WITH_REACH, describe_reach)
    text = config.get_text_config()
    limited = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    return _NAME_WITH_REACH if limited else NAME


def describe_reach(
    *, config: Any, local_size: int | None = None, use_vmap: bool = False, **unused: Any
) -> Reach | None:
    """What transformers calls for a mask."""
    if use_vmap:
        raise NotImplementedError("attention with a mask of the model's own")
    if local_size is None:
        return None
    window = getattr(config, "sliding_window", None)
    return Reach(local_size, chunked=local_size == getattr(config, "attention_chunk_size", None) != window)


@torch.compiler.disable(reason="it goes by the lengths of the documents")
def attend_documents(  # parameters: transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Reach | None,
    *,
    documents: DocumentBounds | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over one packed row, with the signature that transformers calls.

    query is [1, heads, T, head_dim]; key and value may have fewer heads, each shared by a group of the query's. Returns
    [1, T, heads, head_dim]. `documents` comes from the call of the backbone.
    """
    if documents is None:
        raise NotImplementedError("its layers do not hand the documents of a row to their attention")
    if isinstance(attention_mask, torch.Tensor) or unused.get("position_bias") is not None:
        raise NotImplementedError("attention with a mask or a bias of the model's own")
    if key.shape[2] != query.shape[2]:
        raise NotImplementedError("attention to other tokens than the row's own")
    scores = _Scores(scaling, dropout, softcap, s_aux)
    window = None
    if attention_mask is not None and documents.longest > attention_mask.tokens:
        if attention_mask.chunked:
            documents = documents.in_chunks(attention_mask.tokens)
        else:
            window = attention_mask.tokens
    if _has_kernel_for_many(query, value, documents, window, scores):
        return _attend_to_all(query, key, value, documents, scaling, window), None
    parts = zip(query.split(documents.lengths, dim=2), *_split_keys(key, value, documents=documents), strict=True)
    attended = [_attend(q, k, v, window, scores) for q, k, v in parts]
    whole = attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)
    return whole.transpose(1, 2).contiguous(), None


def _split_keys(*tensors: torch.Tensor, documents: DocumentBounds) -> list[list[torch.Tensor]]:
    """Each tensor's part of each document, with what the document shares."""
    if documents.shared is None:
        return [list(tensor.split(documents.lengths, dim=2)) for tensor in tensors]
    return [
        [
            torch.cat([tensor.narrow(2, before, common), own], dim=2) if common else own
            for own, (before, common) in zip(tensor.split(documents.lengths, dim=2), documents.shared, strict=True)
        ]
        for tensor in tensors
    ]


def _has_kernel_for_many(
    query: torch.Tensor, value: torch.Tensor, documents: DocumentBounds, window: int | None, scores: _Scores
) -> bool:
    """True if FlashAttention-2 can take all documents at once: in 16 bits, on an Ampere GPU or newer."""
    if scores.cap is not None or scores.sinks is not None or scores.dropout > 0:
        return False
    worth_it = (
        window is not None or documents.shared is not None or query.shape[2] < _FASTER_ALONE * len(documents.lengths)
    )
    if _varlen_attn()[0] is None or not query.is_cuda or not worth_it:
        return False
    halves = query.dtype in (torch.bfloat16, torch.float16)
    width = query.shape[-1]
    fits = width % 8 == 0 and width <= 256 and width == value.shape[-1]
    return halves and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def _attend_to_all(  # parameters: the kernel's
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    documents: DocumentBounds,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """The kernel aligns the last query of a document with its last key, so a document may have more keys than
    queries."""
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    offsets = key_offsets = documents.offsets
    if documents.keys is not None:
        places, key_offsets = documents.keys
        k, v = k[places], v[places]
    sizes = max(documents.lengths), documents.longest
    attend, grouped = _varlen_attn()
    before = -1 if window is None else window - 1
    return attend(q, k, v, offsets, key_offsets, *sizes, scale=scaling, window_size=(before, 0), **grouped)[None]


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None, scores: _Scores
) -> torch.Tensor:
    """Within one document, in blocks of queries if most of it is outside of their windows. The last query belongs to
    the last key."""
    before = key.shape[2] - query.shape[2]
    if window is None or window >= key.shape[2]:
        return _attend_block(query, key, value, (before, key.shape[2]) if before else None, scores)
    attended = [
        _attend_block(
            query[:, :, rows], key[:, :, keys], value[:, :, keys], (before + rows.start - keys.start, window), scores
        )
        for rows, keys in _blocks(query.shape[2], window, before)
    ]
    return attended[0] if len(attended) == 1 else torch.cat(attended, dim=2)


def _blocks(length: int, window: int, before: int) -> Iterator[tuple[slice, slice]]:
    """Some queries, and the keys that at least one of them sees. `before` is the number of keys before the first
    query."""
    size = max(window, _LEAST_BLOCK)
    for start in range(0, length, size):
        end = min(length, start + size)
        yield slice(start, end), slice(max(0, before + start - window + 1), before + end)


def _attend_block(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    within: tuple[int, int] | None,
    scores: _Scores,
) -> torch.Tensor:
    """`within` is the number of keys before the first query, and the window."""
    dtype = query.dtype
    plain = scores.cap is None and scores.sinks is None
    mask = None
    if within is not None or not plain:
        before, window = within or (0, key.shape[2])
        mask = _mask(query.shape[2], key.shape[2], before, window, query.device)
    attend = _causal if plain else _written_out
    if query.device.type == "cpu" and query.shape[2] <= _FASTER_IN_FP32:
        # Autocast would cast it back to its own format.
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), key.float(), value.float(), mask, scores).to(dtype)
    return attend(query, key, value, mask, scores).to(dtype)


def _mask(queries: int, keys: int, before: int, window: int, device: torch.device) -> torch.Tensor:
    """True where a query sees a key: itself, or one less than a window before it."""
    distance = torch.arange(before, before + queries, device=device)[:, None] - torch.arange(keys, device=device)
    return (distance >= 0) & (distance < window)


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scores: _Scores
) -> torch.Tensor:
    expanded = mask is not None and query.is_cuda
    if expanded:
        # With grouped heads, a GPU has no kernel that takes a mask, and would keep all products.
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scores.scaling,
        dropout_p=scores.dropout,
        enable_gqa=not expanded,
    )


def _written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, scores: _Scores
) -> torch.Tensor:
    """With a cap or sinks, which torch's kernels lack."""
    groups = query.shape[1] // key.shape[1]
    scaling = query.shape[-1] ** -0.5 if scores.scaling is None else scores.scaling
    found = query @ key.repeat_interleave(groups, dim=1).transpose(-1, -2) * scaling
    if scores.cap is not None:
        found = torch.tanh(found / scores.cap) * scores.cap
    found = found.float().masked_fill(~mask, -torch.inf)
    if scores.sinks is not None:
        sinks = scores.sinks.float().view(1, -1, 1, 1).expand(1, -1, found.shape[2], 1)
        weights = torch.cat([found, sinks], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = found.softmax(dim=-1)
    weights = torch.nn.functional.dropout(weights, scores.dropout).to(value.dtype)
    return weights @ value.repeat_interleave(groups, dim=1)
