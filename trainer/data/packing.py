"""A micro-batch is one row of tokens: its documents one after another, without padding."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dataset.document import Document


@dataclass(frozen=True)
class PackedBatch:
    """Documents of n_1, n_2, ... tokens in a row of T = n_1 + n_2 + ... tokens, with N supervised tokens."""

    input_ids: torch.Tensor
    """[1, T]"""
    position_ids: torch.Tensor
    """[1, T], counted from 0 in each document."""
    lengths: list[int]
    """n_1, n_2, ..."""
    offsets: torch.Tensor
    """[documents + 1] int32, the start of each document: 0, n_1, n_1 + n_2, ..., T."""
    rows: torch.Tensor
    """[N] positions in 0 .. T - 1 whose next token is supervised."""
    targets: torch.Tensor
    """[N] those next tokens."""

    def to(self, device: torch.device) -> "PackedBatch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        if device.type == "cuda":
            # A copy from pinned memory is the only one that does not wait for the GPU.
            tensors = {name: value.pin_memory() for name, value in tensors.items()}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})


def pack(documents: Sequence[Document]) -> PackedBatch:
    input_ids: list[int] = []
    position_ids: list[int] = []
    rows: list[int] = []
    targets: list[int] = []
    for document in documents:
        start = len(input_ids)
        input_ids += document.input_ids[:-1]
        position_ids += range(document.length)
        for index, learned in enumerate(document.supervised):
            if learned:
                rows.append(start + index - 1)
                targets.append(document.input_ids[index])
    lengths = [document.length for document in documents]
    return PackedBatch(
        input_ids=torch.tensor([input_ids], dtype=torch.long),
        position_ids=torch.tensor([position_ids], dtype=torch.long),
        lengths=lengths,
        offsets=torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32),
        rows=torch.tensor(rows, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
    )
