"""Noise on the embeddings in training (NEFTune: Jain et al. 2023, arXiv:2310.05914)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def noisy_embeddings(
    embeddings: torch.nn.Module, alpha: float, lengths: list[int], shared: Sequence[int] = ()
) -> Iterator[None]:
    """Within the block, `embeddings` returns [1, T, d] with noise, uniform in +- alpha / sqrt(L d), where L is the
    length of each document, with the tokens that it has `shared` with an earlier one. `lengths` are those in the row.
    The hook is removed afterwards, so it is never saved or seen by an evaluation."""
    wholes = [length + common for length, common in zip(lengths, shared or [0] * len(lengths), strict=True)]

    def add_noise(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        bounds = torch.tensor([alpha / math.sqrt(length * output.shape[-1]) for length in wholes])
        per_token = bounds.repeat_interleave(torch.tensor(lengths))[:, None].to(output)
        return output + torch.empty_like(output).uniform_(-1, 1) * per_token

    hook = embeddings.register_forward_hook(add_noise)
    try:
        yield
    finally:
        hook.remove()
