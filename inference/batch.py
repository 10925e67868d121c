"""Rows that the model takes together, token by token. Rows may join and leave between any two steps."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import DynamicCache

from inference.adapters import Adapters
from inference.row import AnswerRow


class PaddedBatch:
    """Keys and values of all rows in one tensor for each layer, padded on the left to the longest row."""

    def __init__(self, adapters: Adapters) -> None:
        self.rows: list[AnswerRow] = []
        self._adapters = adapters
        self._inputs = inspect.signature(type(adapters.base).forward).parameters
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=adapters.device)
        """[rows, positions]: 1 for a token, 0 for padding."""

    def add(self, rows: Sequence[AnswerRow]) -> torch.Tensor:
        """Adds rows that have one prompt in common. Returns the logits [V] of its next token."""
        prompt = torch.tensor([rows[0].tokens], device=self._adapters.device)
        # Without the configuration every layer keeps all positions. The mask alone limits a sliding window.
        cache, mask = DynamicCache(), torch.ones_like(prompt)
        output = self._forward(rows[:1], prompt, mask, cache)
        if len(rows) > 1:
            cache.batch_repeat_interleave(len(rows))
            mask = mask.repeat(len(rows), 1)
        both = torch.cat([_padded(self._mask, mask.shape[1]), _padded(mask, self._mask.shape[1])])
        self._cache = _joined(self._cache, cache, self._mask.shape[1], mask.shape[1]) if self.rows else cache
        self._mask = both
        self.rows += rows
        return output[0]

    def step(self) -> torch.Tensor:
        """The logits [rows, V] of the tokens after the last one of each row."""
        last = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._adapters.device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        return self._forward(self.rows, last, self._mask, self._cache)

    def _forward(self, rows: Sequence[AnswerRow], ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        given = {"position_ids": positions, "logits_to_keep": 1}
        given = {name: value for name, value in given.items() if name in self._inputs}
        names = [row.adapter for row in rows]
        output = self._adapters.forward(
            names, input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **given
        )
        return output.logits[:, -1].float().cpu()

    def drop(self, gone: Collection[AnswerRow]) -> None:
        """Removes rows, and the padding that no other row needs."""
        kept = [number for number, row in enumerate(self.rows) if row not in gone]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[number] for number in kept]
        if not self.rows:
            self._cache, self._mask = DynamicCache(), self._mask[:0, :0]
            return
        places = torch.tensor(kept, device=self._mask.device)
        self._mask = self._mask[places]
        first = int(self._mask.any(dim=0).int().argmax())
        self._mask = self._mask[:, first:]
        for layer in self._cache.layers:
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[places, :, first:], layer.values[places, :, first:]


def _padded(mask: torch.Tensor, length: int) -> torch.Tensor:
    """With zeros on the left, if it is shorter."""
    return torch.nn.functional.pad(mask, (max(0, length - mask.shape[1]), 0))


def _joined(one: Any, other: Any, length: int, other_length: int) -> Any:
    """The rows of both caches, whose positions end together. Where memory is too small for them, `one` is unchanged."""
    pads = (max(0, other_length - length), max(0, length - other_length))
    layers = [(ours, theirs) for ours, theirs in zip(one.layers, other.layers, strict=True) if ours.is_initialized]
    count = len(layers[0][0].keys) if layers else 0
    try:
        for ours, theirs in layers:
            ours.keys, ours.values = (
                torch.cat([torch.nn.functional.pad(part, (0, 0, pad, 0)) for part, pad in zip(both, pads, strict=True)])
                for both in ((ours.keys, theirs.keys), (ours.values, theirs.values))
            )
    except Exception:
        # Layer by layer, as two whole caches at once would need twice the memory.
        for ours, _ in layers:
            ours.keys, ours.values = ours.keys[:count, :, -length:], ours.values[:count, :, -length:]
        raise
    return one


class Singles:
    """In place of a PaddedBatch for a model that such padding would change: each row goes through the model alone and
    whole, without a cache."""

    def __init__(self, adapters: Adapters) -> None:
        self.rows: list[AnswerRow] = []
        self._adapters = adapters

    def add(self, rows: Sequence[AnswerRow]) -> torch.Tensor:
        self.rows += rows
        return self._next(rows[0])

    def step(self) -> torch.Tensor:
        return torch.stack([self._next(row) for row in self.rows])

    def _next(self, row: AnswerRow) -> torch.Tensor:
        ids = torch.tensor([row.tokens], device=self._adapters.device)
        output = self._adapters.forward([row.adapter], input_ids=ids, use_cache=False)
        return output.logits[0, -1].float().cpu()

    def drop(self, gone: Collection[AnswerRow]) -> None:
        self.rows = [row for row in self.rows if row not in gone]
