"""The sums that a run's objective makes of a packed micro-batch. Logits are computed only for supervised positions, one
chunk at a time."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from transformers import StoppingCriteriaList

from trainer.data.packing import PackedBatch, pack
from trainer.methods.objective import AnswerObjective, Objective
from trainer.model import attention
from trainer.model.backbone import backbone_of
from trainer.model.head import head_losses, sums_of_logits
from trainer.model.mixers import Row, separate_documents
from trainer.model.neftune import noisy_embeddings
from trainer.model.own_head import own_head_losses
from trainer.model.router_loss import RouterLoss, document_weights, router_loss
from trainer.model.row_path import RowPath
from trainer.stop import Stop


class TrainedModel(torch.nn.Module):
    """Wraps a causal language model so that its forward pass returns the loss; DDP needs the loss inside the module.

    `path` says how rows go through the model. Documents one by one are slower, and correct for any causal model.
    `neftune_alpha` adds noise to the embeddings in training mode; see trainer.model.neftune.
    """

    def __init__(
        self, model: Any, path: RowPath, neftune_alpha: float | None = None, objective: Objective | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.path = path
        self.neftune_alpha = neftune_alpha
        self.objective = objective or AnswerObjective()
        causal_lm = model.get_base_model()
        self.router = router_loss(causal_lm)
        self.keeps_logits = "logits_to_keep" in inspect.signature(type(causal_lm).forward).parameters
        self._own_attention = _attention_of(causal_lm.config)
        self._row = Row()
        if path.packed:
            self._use_attention(self._packed_attention())
            separate_documents(backbone_of(causal_lm), path.separated, self._row)

    def forward(self, batch: PackedBatch, log_probabilities: bool = False) -> torch.Tensor:
        """The objective's sums, in fp32; in training, the first has its share of the routers' loss. Instead of them, if
        asked for, the `log_probabilities` of each document's answer [D].

        An empty batch gives zeros that went through the whole model, since other ranks may wait for this rank's part of
        every communication."""
        if not batch.lengths:
            empty = self._sums(pack([self.objective.empty]).to(batch.targets.device), log_probabilities) * 0
            if router := self._router_in_training:
                router.forget(len(self.objective.empty.documents))
            return empty
        return self._sums(batch, log_probabilities)

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
    def shares_prompts(self) -> bool:
        """Whether what both documents of a pair begin with goes through the model once."""
        return self.path.shares_prompts and self.router is None

    @property
    def head(self) -> torch.nn.Module:
        """The output head. If it is frozen, its weight is used without calling it."""
        return self.model.get_base_model().get_output_embeddings()

    def _sums(self, batch: PackedBatch, log_probabilities: bool) -> torch.Tensor:
        losses, correct, of_routers = self._packed(batch) if self.packed else self._one_by_one(batch)
        if log_probabilities:
            return -losses
        if of_routers is None:
            return self.objective(losses, correct, batch)
        first, *others = self.objective(losses, correct, batch)
        return torch.stack([first + of_routers, *others])

    def _packed(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The sums, and the routers' loss in training."""
        causal_lm = self.model.get_base_model()
        backbone = backbone_of(causal_lm)
        router = self._router_in_training
        self._row.lengths = batch.lengths
        given = {
            "position_ids": batch.position_ids,
            "use_cache": False,
            "documents": attention.DocumentBounds(batch.lengths, batch.offsets, batch.shared),
            **({"output_router_logits": True} if router else {}),
        }
        with self._noise(batch.lengths, batch.shared):
            outputs = backbone(input_ids=batch.input_ids, **_accepted(backbone, given))
        hidden = outputs.last_hidden_state[0, batch.rows]
        counts = None if batch.answers is None else batch.answers.tokens
        if self.path.plain_head:
            losses, correct = head_losses(hidden, self.head, batch.targets, counts)
        else:
            losses, correct = own_head_losses(causal_lm, outputs, hidden, batch.targets, counts)
        of_routers = router.of_row(outputs.router_logits, batch) if router else None
        return losses, correct, of_routers

    def _one_by_one(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Uses the model's own logits, which it may scale or cap. Few models cannot compute logits for some positions
        only; for those, positions are selected afterwards."""
        losses, correct, of_routers = [], [], []
        router = self._router_in_training
        weights = document_weights(batch) if router else []
        start = 0
        for index, length in enumerate(batch.lengths):
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
            loss, ranked_first = sums_of_logits(logits, batch.targets[inside], None)
            losses.append(loss)
            correct.append(ranked_first)
            if router:
                of_routers.append(router.of_document(output.aux_loss, weights[index]))
            start += length
        by_document = torch.stack(losses), torch.stack(correct)
        of_all = torch.stack(of_routers).sum() if of_routers else None
        if batch.answers is None:
            return by_document[0].sum(), by_document[1].sum(), of_all
        return *by_document, of_all

    @property
    def _router_in_training(self) -> RouterLoss | None:
        """An evaluation has the loss of the tokens alone."""
        return self.router if self.training else None

    def _noise(
        self, lengths: list[int], shared: list[tuple[int, int]] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        if self.neftune_alpha is None or not self.training:
            return contextlib.nullcontext()
        embeddings = self.model.get_base_model().get_input_embeddings()
        return noisy_embeddings(embeddings, self.neftune_alpha, lengths, [common for _, common in shared or ()])

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
