"""Token losses under a model's output matrix. A chunk's logits are dropped before the next chunk's are computed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Bytes of fp32 logits held at once. A GPU reads the whole head from memory twice per chunk; with few rows that takes
as long as the products."""

Sums = tuple[torch.Tensor, torch.Tensor]
"""Token losses in nats, and how many tokens the model ranks first, in fp32: of a whole batch [], or of each document
[D]."""


RowSums = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""The same of some rows, added up [] or row by row [n], and the gradient of their losses [n, H]."""


def head_losses(
    hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor, counts: torch.Tensor | None = None
) -> Sums:
    """The cross entropies of `targets` [N] under `head` of `hidden` [N, H], and the targets that it ranks first: summed
    over all, or over the first counts[0] rows, the next counts[1], and so on."""
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets, counts)
    return sums_of_logits(head(hidden), targets, counts)


def sums_of_logits(logits: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None) -> Sums:
    """The same for logits [N, V]."""
    logits = logits.float()
    correct = ranks_first(logits.detach(), targets)
    if counts is None:
        return F.cross_entropy(logits, targets, reduction="sum"), correct.sum()
    return sum_by(counts, F.cross_entropy(logits, targets, reduction="none")), sum_by(counts, correct)


def ranks_first(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where no score is higher than the target's, else 0: [N] of `scores` [N, V], in fp32."""
    return (scores.gather(1, targets[:, None])[:, 0] >= scores.amax(dim=1)).float()


def sum_by(counts: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Sums [D] of the first counts[0] of the values [N], the next counts[1], and so on: the same at each call, which
    index_add is not on a GPU."""
    return torch.segment_reduce(values, "sum", lengths=counts)


def add_up(
    of_rows: Callable[[slice], RowSums], hidden: torch.Tensor, counts: torch.Tensor | None, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The sums of `head_losses`, and the gradient of the token losses with respect to `hidden`, None if it needs none.

    `of_rows` is called with so many rows that their logits, in fp32, fit into CHUNK_BYTES.
    """
    chunk = max(1, CHUNK_BYTES[hidden.device.type] // (4 * vocabulary))
    losses = torch.zeros(() if counts is None else len(hidden), dtype=torch.float32, device=hidden.device)
    correct = torch.zeros_like(losses)
    gradient = torch.empty_like(hidden) if hidden.requires_grad else None
    for start in range(0, len(hidden), chunk):
        rows = slice(start, start + chunk)
        of_these, ranked_first, its_gradient = of_rows(rows)
        if counts is None:
            losses += of_these
            correct += ranked_first
        else:
            losses[rows], correct[rows] = of_these, ranked_first
        if gradient is not None and its_gradient is not None:
            gradient[rows] = its_gradient
    if counts is None:
        return losses, correct, gradient
    return sum_by(counts, losses), sum_by(counts, correct), gradient


class _FrozenHead(torch.autograd.Function):
    """Cross entropy under a frozen output matrix W [V, H].

    The gradient with respect to hidden, (softmax(h W^T) - onehot(target)) W, is computed in the forward pass while a
    chunk's logits exist, so they are neither kept for the backward pass nor computed twice. Under autocast the products
    are in its format, as in a linear module.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None
    ) -> Sums:
        with_gradient = ctx.needs_input_grad[0]

        def of_rows(rows: slice) -> RowSums:
            log_probs = F.log_softmax(hidden[rows] @ weight.T, dim=-1, dtype=torch.float32)
            target = targets[rows, None]
            found = log_probs.gather(1, target)[:, 0]
            correct = (found >= log_probs.amax(dim=1)).float()
            if counts is None:
                found, correct = found.sum(), correct.sum()
            if not with_gradient:
                return -found, correct, None
            residual = log_probs.exp_().scatter_add_(1, target, log_probs.new_full(target.shape, -1.0))
            return -found, correct, residual.to(weight.dtype) @ weight

        losses, correct, gradient = add_up(of_rows, hidden, counts, weight.shape[0])
        ctx.save_for_backward(gradient, counts)
        ctx.mark_non_differentiable(correct)
        return losses, correct

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        gradient, counts = ctx.saved_tensors
        return scale_rows(gradient, upstream[0], counts), None, None, None


def scale_rows(gradient: torch.Tensor, upstream: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """The gradient [N, H] of token losses, times that of their sums."""
    if counts is not None:
        upstream = torch.repeat_interleave(upstream, counts, output_size=len(gradient))[:, None]
    # In fp32: fp16's loss scale may exceed fp16's range even if the product does not.
    return (gradient.float() * upstream).to(gradient.dtype)
