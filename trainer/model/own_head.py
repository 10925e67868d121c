"""The loss under a model's own code for logits, which may scale or cap them, one chunk at a time."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from trainer.model.backbone import backbone_of, outer_parameters


def own_head_loss(
    causal_lm: Any, outputs: Any, hidden: torch.Tensor, targets: torch.Tensor, chunk_bytes: int
) -> torch.Tensor:
    """Sum of the cross entropies of `targets` [N] under the model's logits of `hidden` [N, H], a part of the backbone's
    `outputs`."""

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return own_logits(causal_lm, outputs, rows)

    head = [*causal_lm.get_output_embeddings().parameters(), *outer_parameters(causal_lm)]
    # DeepSpeed's stage 3 gathers weights at each call, and the ranks must call equally often.
    if any(each.requires_grad or hasattr(each, "ds_id") for each in head):
        return F.cross_entropy(logits(hidden).float(), targets, reduction="sum")
    chunk = max(1, chunk_bytes // (4 * causal_lm.config.get_text_config().vocab_size))
    return _FrozenOwnHead.apply(hidden, logits, targets, chunk)


def own_logits(causal_lm: Any, outputs: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [N, V] of `hidden` [N, H]: the model's whole forward pass, with these in place of what its backbone
    computes."""
    backbone = backbone_of(causal_lm)
    given = type(outputs)(**{**outputs, "last_hidden_state": hidden[None]})
    before = vars(backbone).get("forward")
    backbone.forward = lambda *_, **__: given
    try:
        input_ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        return causal_lm.forward(input_ids=input_ids, use_cache=False).logits[0]
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before


class _FrozenOwnHead(torch.autograd.Function):
    """The gradient with respect to hidden is computed in the forward pass while a chunk's logits exist, so they are
    neither kept for the backward pass nor computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        logits: Callable[[torch.Tensor], torch.Tensor],
        targets: torch.Tensor,
        chunk: int,
    ) -> torch.Tensor:
        with_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if with_gradient else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            with torch.set_grad_enabled(with_gradient):
                some = hidden[rows].detach().requires_grad_(with_gradient)
                part = F.cross_entropy(logits(some).float(), targets[rows], reduction="sum")
            if gradient is not None:
                (gradient[rows],) = torch.autograd.grad(part, some)
            loss += part.detach()
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        # In fp32: fp16's loss scale may exceed fp16's range even if the product does not.
        return (gradient.float() * upstream[0]).to(gradient.dtype), None, None, None
