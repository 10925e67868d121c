"""The sum of token losses of a packed micro-batch. Logits are made for supervised positions only, a chunk at a time."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from transformers import StoppingCriteriaList

from dataset.document import Document
from trainer.model import attention
from trainer.model.neftune import noisy
from trainer.model.packing import Packed, pack
from trainer.stop import Stop

_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Of fp32 logits held at once. A GPU reads the whole head from its memory twice for each chunk: with few rows that
takes as long as the products."""

_NOTHING = Document(input_ids=[0, 0], supervised=[False, True])


class SupervisedLoss(torch.nn.Module):
    """Wraps a causal language model so that its forward pass gives the loss; DDP needs the loss inside the module.

    `packed` says whether the model's attention keeps documents apart by their lengths. Where it does not, each document
    goes through the model by itself, which is slower and right for any causal model. `neftune_alpha` puts noise on the
    embeddings in training mode; see trainer.model.neftune.
    """

    def __init__(self, model: Any, packed: bool, neftune_alpha: float | None = None) -> None:
        super().__init__()
        self.model = model
        self.packed = packed
        self.neftune_alpha = neftune_alpha
        self.keeps_logits = "logits_to_keep" in inspect.signature(type(model.get_base_model()).forward).parameters

    def forward(self, batch: Packed) -> torch.Tensor:
        """Sum over the supervised tokens, in nats; a scalar in fp32. An empty batch is a zero that has gone through the
        whole model, as the batches of the other ranks have: these may wait for its part of every exchange."""
        if not batch.lengths:
            return self._loss(pack([_NOTHING]).to(batch.targets.device)) * 0
        return self._loss(batch)

    @property
    def head(self) -> torch.nn.Module:
        """The output head. Where it is frozen its weight is used without calling it."""
        return self.model.get_base_model().get_output_embeddings()

    def _loss(self, batch: Packed) -> torch.Tensor:
        return self._packed(batch) if self.packed else self._one_by_one(batch)

    def _packed(self, batch: Packed) -> torch.Tensor:
        backbone = self.model.get_base_model().base_model
        with self._noise(batch.lengths):
            hidden = backbone(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                use_cache=False,
                documents=attention.Documents(batch.lengths, batch.offsets),
            ).last_hidden_state
        return head_loss(hidden[0, batch.rows], self.head, batch.targets)

    def _one_by_one(self, batch: Packed) -> torch.Tensor:
        """The model makes its own logits: it may scale or cap them. Few models cannot make them for some positions
        alone; then those are taken from all."""
        losses = []
        start = 0
        for length in batch.lengths:
            inside = (batch.rows >= start) & (batch.rows < start + length)
            rows = batch.rows[inside] - start
            input_ids = batch.input_ids[:, start : start + length]
            with self._noise([length]):
                if self.keeps_logits:
                    logits = self.model(input_ids=input_ids, use_cache=False, logits_to_keep=rows).logits[0]
                else:
                    logits = self.model(input_ids=input_ids, use_cache=False).logits[0, rows]
            losses.append(F.cross_entropy(logits.float(), batch.targets[inside], reduction="sum"))
            start += length
        return torch.stack(losses).sum()

    def _noise(self, lengths: list[int]) -> contextlib.AbstractContextManager[None]:
        if self.neftune_alpha is None or not self.training:
            return contextlib.nullcontext()
        return noisy(self.model.get_base_model().get_input_embeddings(), self.neftune_alpha, lengths)

    @torch.no_grad()
    def generate(
        self, prompt: list[int], max_new_tokens: int, end_tokens: list[int], stop: Stop, *, sharded: bool = False
    ) -> list[int]:
        """The tokens that follow `prompt`, each the most likely one, up to the first of `end_tokens` and with it.

        Cut short when asked to stop, and at the last position that the model has. No random numbers are used. Where the
        weights are `sharded`, all ranks must call this together: none ends before the others, they need its part.
        """
        causal_lm = self.model.get_base_model()
        positions = getattr(causal_lm.config.get_text_config(), "max_position_embeddings", None)
        if positions is not None:
            max_new_tokens = min(max_new_tokens, positions - len(prompt))
        if max_new_tokens < 1:
            return []
        input_ids = torch.tensor([prompt], device=causal_lm.device)
        with self._ready_to_generate():
            output = causal_lm.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=end_tokens or None,
                pad_token_id=0,  # one prompt needs no padding; the library warns where it has no token for it
                stopping_criteria=StoppingCriteriaList([lambda ids, _: torch.tensor([stop.asked], device=ids.device)]),
                synced_gpus=sharded,
            )
        return output[0, len(prompt) :].tolist()

    @contextlib.contextmanager
    def _ready_to_generate(self) -> Iterator[None]:
        """Without dropout, not compiled, and with attention that has a cache: ours has none."""
        causal_lm = self.model.get_base_model()
        was_training = self.training
        self.eval()
        if self.packed:
            causal_lm.set_attn_implementation("sdpa")
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if self.packed:
                causal_lm.set_attn_implementation(attention.NAME)
            self.train(was_training)


def head_loss(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropies of `targets` [N] under `head` of `hidden` [N, H]."""
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets)
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


class _FrozenHead(torch.autograd.Function):
    """Cross entropy under a frozen output matrix W [V, H].

    The gradient with respect to hidden, (softmax(h W^T) - onehot(target)) W, is made in the forward pass while the
    logits of a chunk are at hand: they are neither kept for the backward pass nor made twice. Under autocast the
    products are in its format, as a linear module's are.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chunk = max(1, _CHUNK_BYTES[hidden.device.type] // (4 * weight.shape[0]))
        with_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if with_gradient else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(targets), chunk):
            rows = slice(start, start + chunk)
            log_probs = F.log_softmax(hidden[rows] @ weight.T, dim=-1, dtype=torch.float32)
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
        # In fp32: fp16's loss scale may be too large for fp16 where the product is not.
        return (gradient.float() * upstream[0]).to(gradient.dtype), None, None
