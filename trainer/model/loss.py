"""The sum of token losses of a packed micro-batch. Logits are computed only for supervised positions, one chunk at a
time."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from transformers import StoppingCriteriaList

from dataset.document import Document
from trainer.data.packing import PackedBatch, pack
from trainer.model import attention
from trainer.model.backbone import backbone_of
from trainer.model.mixers import Row, separate_documents
from trainer.model.neftune import noisy_embeddings
from trainer.model.own_head import own_head_loss
from trainer.model.router_loss import RouterLoss, router_loss
from trainer.model.row_path import RowPath
from trainer.stop import Stop

_CHUNK_BYTES = {"cpu": 64 * 2**20, "cuda": 256 * 2**20}
"""Bytes of fp32 logits held at once. A GPU reads the whole head from memory twice per chunk; with few rows that takes
as long as the products."""

_EMPTY_DOCUMENT = Document(input_ids=[0, 0], supervised=[False, True])


class SupervisedLoss(torch.nn.Module):
    """Wraps a causal language model so that its forward pass returns the loss; DDP needs the loss inside the module.

    `path` says how rows go through the model. Documents one by one are slower, and correct for any causal model.
    `neftune_alpha` adds noise to the embeddings in training mode; see trainer.model.neftune.
    """

    def __init__(self, model: Any, path: RowPath, neftune_alpha: float | None = None) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.neftune_alpha = neftune_alpha
        causal_lm = model.get_base_model()
        self.router = router_loss(causal_lm)
        self.keeps_logits = "logits_to_keep" in inspect.signature(type(causal_lm).forward).parameters
        self._own_attention = _attention_of(causal_lm.config)
        self._row = Row()
        if path.packed:
            self._use_attention(self._packed_attention())
            separate_documents(backbone_of(causal_lm), path.separated, self._row)

    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Sum over the supervised tokens, in nats, in training with their share of the routers' loss; a scalar in fp32.
        An empty batch gives a zero that went through the whole model, since other ranks may wait for this rank's part
        of every communication."""
        if not batch.lengths:
            empty = self._loss(pack([_EMPTY_DOCUMENT]).to(batch.targets.device)) * 0
            if router := self._router_in_training:
                router.forget_last()
            return empty
        return self._loss(batch)

    def take_one_by_one(self, because: str) -> None:
        """From now on each document goes through the model alone."""
        if self.packed:
            self._row.lengths = None
            self._use_attention(self._own_attention)
        self.path = RowPath(False, because=because)

    @property
    def packed(self) -> bool:
        return self.path.packed

    @property
    def head(self) -> torch.nn.Module:
        """The output head. If it is frozen, its weight is used without calling it."""
        return self.model.get_base_model().get_output_embeddings()

    def _loss(self, batch: PackedBatch) -> torch.Tensor:
        return self._packed(batch) if self.packed else self._one_by_one(batch)

    def _packed(self, batch: PackedBatch) -> torch.Tensor:
        causal_lm = self.model.get_base_model()
        backbone = backbone_of(causal_lm)
        router = self._router_in_training
        self._row.lengths = batch.lengths
        given = {
            "position_ids": batch.position_ids,
            "use_cache": False,
            "documents": attention.DocumentBounds(batch.lengths, batch.offsets),
            **({"output_router_logits": True} if router else {}),
        }
        with self._noise(batch.lengths):
            outputs = backbone(input_ids=batch.input_ids, **_accepted(backbone, given))
        hidden = outputs.last_hidden_state[0, batch.rows]
        if self.path.plain_head:
            loss = head_loss(hidden, self.head, batch.targets)
        else:
            loss = own_head_loss(causal_lm, outputs, hidden, batch.targets, _CHUNK_BYTES[hidden.device.type])
        return loss + router.of_row(outputs.router_logits, batch.lengths, batch.rows) if router else loss

    def _one_by_one(self, batch: PackedBatch) -> torch.Tensor:
        """Uses the model's own logits, which it may scale or cap. Few models cannot compute logits for some positions
        only; for those, positions are selected afterwards."""
        losses = []
        start = 0
        for length in batch.lengths:
            inside = (batch.rows >= start) & (batch.rows < start + length)
            rows = batch.rows[inside] - start
            input_ids = batch.input_ids[:, start : start + length]
            with self._noise([length]):
                if self.keeps_logits:
                    output = self.model(input_ids=input_ids, use_cache=False, logits_to_keep=rows)
                    logits = output.logits[0]
                else:
                    output = self.model(input_ids=input_ids, use_cache=False)
                    logits = output.logits[0, rows]
            losses.append(F.cross_entropy(logits.float(), batch.targets[inside], reduction="sum"))
            if router := self._router_in_training:
                losses.append(router.of_document(output.aux_loss, len(rows)))
            start += length
        return torch.stack(losses).sum()

    @property
    def _router_in_training(self) -> RouterLoss | None:
        """An evaluation has the loss of the tokens alone."""
        return self.router if self.training else None

    def _noise(self, lengths: list[int]) -> contextlib.AbstractContextManager[None]:
        if self.neftune_alpha is None or not self.training:
            return contextlib.nullcontext()
        return noisy_embeddings(self.model.get_base_model().get_input_embeddings(), self.neftune_alpha, lengths)

    def _packed_attention(self) -> dict[str, str]:
        """Ours in the text part. Parts for images and sound keep their own, since not every part takes every one."""
        config = self.model.get_base_model().config
        text = config.get_text_config()
        named = {"": config} | {name: getattr(config, name) for name in self._own_attention if name}
        ours = attention.register(config)
        return {
            name: ours if part is config or part is text else self._own_attention[name] for name, part in named.items()
        }

    def _use_attention(self, names: dict[str, str]) -> None:
        """Some models have an attention of their own only, and warn if they are to use another."""
        causal_lm = self.model.get_base_model()
        if causal_lm._can_set_attn_implementation():
            causal_lm.set_attn_implementation(names)

    @torch.no_grad()
    def generate(
        self, prompt: list[int], max_new_tokens: int, end_tokens: list[int], stop: Stop, *, sharded: bool = False
    ) -> list[int]:
        """The most likely tokens after `prompt`, one by one, up to and including the first of `end_tokens`.

        Ends early on a stop request, and at the model's last position. No random numbers are used. If the weights are
        `sharded`, all ranks must call this together, and none ends before the others.
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
                pad_token_id=0,  # one prompt needs no padding, but the library warns if it has no token for it
                stopping_criteria=StoppingCriteriaList(
                    [lambda ids, _: torch.tensor([stop.requested], device=ids.device)]
                ),
                synced_gpus=sharded,
            )
        return output[0, len(prompt) :].tolist()

    @contextlib.contextmanager
    def _ready_to_generate(self) -> Iterator[None]:
        """Turns off dropout and compilation, and uses attention with a cache, which ours does not have."""
        was_training = self.training
        self.eval()
        if self.packed:
            self._use_attention(self._own_attention)
        self._row.lengths = None
        try:
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            if self.packed:
                self._use_attention(self._packed_attention())
            self.train(was_training)


def _attention_of(config: Any) -> dict[str, str]:
    """The attention of each part of a model by the name of its configuration; "" is the whole."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation} | {
        name: part._attn_implementation for name, part in parts.items() if part is not None
    }


def _accepted(module: torch.nn.Module, given: dict[str, Any]) -> dict[str, Any]:
    """Those that the module's forward pass has parameters for: a model without attention needs no documents."""
    parameters = inspect.signature(type(module).forward).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return given
    return {name: value for name, value in given.items() if name in parameters}


def head_loss(hidden: torch.Tensor, head: torch.nn.Module, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the cross entropies of `targets` [N] under `head` of `hidden` [N, H]."""
    if type(head) is torch.nn.Linear and head.bias is None and not head.weight.requires_grad:
        return _FrozenHead.apply(hidden, head.weight, targets)
    return F.cross_entropy(head(hidden).float(), targets, reduction="sum")


class _FrozenHead(torch.autograd.Function):
    """Cross entropy under a frozen output matrix W [V, H].

    The gradient with respect to hidden, (softmax(h W^T) - onehot(target)) W, is computed in the forward pass while a
    chunk's logits exist, so they are neither kept for the backward pass nor computed twice. Under autocast the products
    are in its format, as in a linear module.
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
        # In fp32: fp16's loss scale may exceed fp16's range even if the product does not.
        return (gradient.float() * upstream[0]).to(gradient.dtype), None, None
