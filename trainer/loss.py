"""The sum of token losses of a packed micro-batch. Logits are made for supervised positions only, a chunk at a time."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F

from trainer.packing import Document, Packed, pack

_CHUNK_BYTES = 64 * 2**20
"""Of fp32 logits held at once."""

_NOTHING = Document(input_ids=[0, 0], supervised=[False, True])


class SupervisedLoss(torch.nn.Module):
    """Wraps a causal language model so that its forward pass gives the loss; DDP needs the loss inside the module.

    `packed` says whether the model's attention keeps documents apart by their lengths. Where it does not, each document
    goes through the model by itself, which is slower and right for any causal model.
    """

    def __init__(self, model: Any, packed: bool) -> None:
        super().__init__()
        self.model = model
        self.packed = packed
        self.keeps_logits = "logits_to_keep" in inspect.signature(type(model.get_base_model()).forward).parameters

    def forward(self, batch: Packed) -> torch.Tensor:
        """Sum over the supervised tokens, in nats; a scalar in fp32. An empty batch is a zero that has gone through the
        whole model, as the batches of the other ranks have: these may wait for its part of every exchange."""
        if not batch.lengths:
            return self._loss(pack([_NOTHING]).to(batch.targets.device)) * 0
        return self._loss(batch)

    def _loss(self, batch: Packed) -> torch.Tensor:
        return self._packed(batch) if self.packed else self._one_by_one(batch)

    def _packed(self, batch: Packed) -> torch.Tensor:
        causal_lm = self.model.get_base_model()
        hidden = causal_lm.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            use_cache=False,
            document_lengths=batch.lengths,
        ).last_hidden_state
        return head_loss(hidden[0, batch.rows], causal_lm.get_output_embeddings(), batch.targets)

    def _one_by_one(self, batch: Packed) -> torch.Tensor:
        """The model makes its own logits: it may scale or cap them. Few models cannot make them for some positions
        alone; then those are taken from all."""
        losses = []
        start = 0
        for length in batch.lengths:
            inside = (batch.rows >= start) & (batch.rows < start + length)
            rows = batch.rows[inside] - start
            input_ids = batch.input_ids[:, start : start + length]
            if self.keeps_logits:
                logits = self.model(input_ids=input_ids, use_cache=False, logits_to_keep=rows).logits[0]
            else:
                logits = self.model(input_ids=input_ids, use_cache=False).logits[0, rows]
            losses.append(F.cross_entropy(logits.float(), batch.targets[inside], reduction="sum"))
            start += length
        return torch.stack(losses).sum()


def head_loss(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropies of `targets` [N] under `head` of `hidden` [N, H]."""
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets)
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


class _FrozenHead(torch.autograd.Function):
    """Cross entropy under a frozen output matrix W [V, H].

    The gradient with respect to hidden, (softmax(h W^T) - onehot(target)) W, is made in the forward pass while the
    logits of a chunk are at hand: they are neither kept for the backward pass nor made twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chunk = max(1, _CHUNK_BYTES // (4 * weight.shape[0]))
        with_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if with_gradient else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            log_probs = F.log_softmax((hidden[rows] @ weight.T).float(), dim=-1)
            target = targets[rows, None]
            loss -= log_probs.gather(1, target).sum()
            if gradient is not None:
                residual = log_probs.exp_().scatter_add_(1, target, log_probs.new_full(target.shape, -1.0))
                gradient[rows] = residual.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0].to(gradient.dtype), None, None
