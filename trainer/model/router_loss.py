"""The auxiliary loss of a mixture's routers, which keeps its experts equally busy (Fedus et al., arXiv:2101.03961).

The model's config.json decides: `output_router_logits` turns it on, and `router_aux_loss_coef` is its coefficient. It
is a product of two means over tokens, so that of a whole batch depends on what is in the batch. Here each document has
its own, as in DeepSeek-V3 (arXiv:2412.19437, section 2.1.2), weighted by its supervised tokens. So it adds up like the
loss itself: the same for any micro-batches, packed or not, on any number of ranks.
"""

import sys
from typing import Any

import torch

from trainer.data.packing import PackedBatch

_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef")


def router_loss(causal_lm: Any) -> "RouterLoss | None":
    """None if the model's configuration has no such loss."""
    config = causal_lm.config.get_text_config()
    coefficient = next((value for name in _COEFFICIENTS if (value := getattr(config, name, None))), None)
    if coefficient is None or not getattr(config, "output_router_logits", False):
        return None
    return RouterLoss(causal_lm, coefficient)


class RouterLoss:
    """Adds up the documents' losses until they are taken."""

    def __init__(self, causal_lm: Any, coefficient: float) -> None:
        self._causal_lm = causal_lm
        self.coefficient = coefficient
        self._kept: list[torch.Tensor] = []

    def of_document(self, loss: torch.Tensor, weight: float) -> torch.Tensor:
        """What the loss of a document adds to the sum that is minimised. `loss` is the model's own."""
        weighted = loss.float() * weight
        self._kept.append(weighted.detach())
        return self.coefficient * weighted

    def of_row(self, logits: tuple[torch.Tensor, ...], batch: PackedBatch) -> torch.Tensor:
        """The same for all documents of a packed row. `logits` are those of each layer [tokens, experts]."""
        balance = sys.modules[type(self._causal_lm).__module__].load_balancing_loss_func
        sizes = self._causal_lm.num_experts, self._causal_lm.num_experts_per_tok
        documents = zip(*(each.split(batch.lengths) for each in logits), strict=True)
        losses = [
            self.of_document(balance(of_document, *sizes), weight)
            for of_document, weight in zip(documents, document_weights(batch), strict=True)
        ]
        return torch.stack(losses).sum()

    def forget(self, documents: int) -> None:
        """Forgets so many of the last documents, which are no example."""
        del self._kept[-documents:]

    def take(self) -> float:
        """The sum of the weighted losses since the last call, without the coefficient."""
        total = sum(each.item() for each in self._kept)
        self._kept = []
        return total


def document_weights(batch: PackedBatch) -> list[float]:
    """What each document counts: its supervised tokens, where these are what the loss is divided by, or else an equal
    part of its item."""
    if batch.answers is not None:
        return [1 / batch.answers.documents_per_item] * len(batch.lengths)
    ends = torch.tensor(batch.lengths).cumsum(0)
    places = torch.searchsorted(ends, batch.rows.cpu(), right=True)
    return torch.bincount(places, minlength=len(batch.lengths)).tolist()
