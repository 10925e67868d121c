"""The loss under a model's own code for logits, which may scale or cap them, one chunk at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from trainer.model.backbone import backbone_of, outer_parameters
from trainer.model.head import RowSums, Sums, add_up, scale_rows, sums_of_logits


def own_head_losses(
    causal_lm: Any, outputs: Any, hidden: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor | None
) -> Sums:
    """The sums of trainer.model.head.head_losses under the model's logits of `hidden` [N, H], a part of the backbone's
    `outputs`."""

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return own_logits(causal_lm, outputs, rows)

    head = [*causal_lm.get_output_embeddings().parameters(), *outer_parameters(causal_lm)]
    # DeepSpeed's stage 3 gathers weights at each call, and the ranks must call equally often.
    if any(each.requires_grad or hasattr(each, "ds_id") for each in head):
        return sums_of_logits(logits(hidden), targets, counts)
    vocabulary = causal_lm.config.get_text_config().vocab_size
    return _FrozenOwnHead.apply(hidden, logits, targets, counts, vocabulary)


def own_logits(causal_lm: Any, outputs: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [N, V] of `hidden` [N, H]: the model's whole forward pass, with these in place of what its backbone
    computes."""
    with backbone_gives(causal_lm, outputs, hidden) as input_ids:
        return causal_lm.forward(input_ids=input_ids, use_cache=False).logits[0]


@contextmanager
def backbone_gives(causal_lm: Any, outputs: Any, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """Has the backbone compute nothing, and give its `outputs` again with `hidden` [N, H] as the last hidden states.
    Yields input ids [1, N] for the model's forward pass, which mean nothing."""
    backbone = backbone_of(causal_lm)
    given = type(outputs)(**{**outputs, "last_hidden_state": hidden[None]})
    before = vars(backbone).get("forward")
    backbone.forward = lambda *_, **__: given
    try:
        yield torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before


class _FrozenOwnHead(torch.autograd.Function):
    """The gradient with respect to hidden is computed in the forward pass while a chunk's logits exist, so they are
    neither kept for the backward pass nor computed twice."""

    @staticmethod
    def forward(  # parameters: what torch saves must be among them
        ctx: Any,
        hidden: torch.Tensor,
        logits: Callable[[torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        counts: torch.Tensor | None,
        vocabulary: int,
    ) -> Sums:
        with_gradient = ctx.needs_input_grad[0]

        def of_rows(rows: slice) -> RowSums:
            each = None if counts is None else torch.ones_like(targets[rows])
            with torch.set_grad_enabled(with_gradient):
                some = hidden[rows].detach().requires_grad_(with_gradient)
                found, correct = sums_of_logits(logits(some), targets[rows], each)
                total = found.sum()
            if not with_gradient:
                return found, correct, None
            return found.detach(), correct, torch.autograd.grad(total, some)[0]

        losses, correct, gradient = add_up(of_rows, hidden, counts, vocabulary)
        ctx.save_for_backward(gradient, counts)
        ctx.mark_non_differentiable(correct)
        return losses, correct

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        gradient, counts = ctx.saved_tensors
        return scale_rows(gradient, upstream[0], counts), None, None, None, None
