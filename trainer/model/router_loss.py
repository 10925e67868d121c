"""The auxiliary loss of a mixture's routers, which keeps its experts equally busy (Fedus et al., arXiv:2101.03961).

The model's config.json decides: `output_router_logits` turns it on, and `router_aux_loss_coef` is its coefficient. It
is a product of two means over tokens, so that of a whole batch depends on what is in the batch. Here each document has
its own, as in DeepSeek-V3 (arXiv:2412.19437, section 2.1.2), weighted by its supervised tokens. So it adds up like the
loss itself: the same for any micro-batches, packed or not, on any number of ranks.
"""

import sys
from typing import Any

import torch

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

    def of_document(self, loss: torch.Tensor, supervised: int) -> torch.Tensor:
        """What the loss of a document adds to the sum of token losses. `loss` is the model's own."""
        weighted = loss.float() * supervised
        self._kept.append(weighted.detach())
        return self.coefficient * weighted

    def of_row(self, logits: tuple[torch.Tensor, ...], lengths: list[int], rows: torch.Tensor) -> torch.Tensor:
        """The same for all documents of a packed row. `logits` are those of each layer [tokens, experts]; `rows` are
        the places of the supervised tokens."""
        balance = sys.modules[type(self._causal_lm).__module__].load_balancing_loss_func
        sizes = self._causal_lm.num_experts, self._causal_lm.num_experts_per_tok
        ends = torch.tensor(lengths).cumsum(0)
        supervised = torch.bincount(torch.searchsorted(ends, rows.cpu(), right=True), minlength=len(lengths))
        documents = zip(*(each.split(lengths) for each in logits), strict=True)
        losses = [
            self.of_document(balance(of_document, *sizes), number)
            for of_document, number in zip(documents, supervised.tolist(), strict=True)
        ]
        return torch.stack(losses).sum()

    def forget_last(self) -> None:
        """Forgets the last document, which is no example."""
        self._kept.pop()

    def take(self) -> float:
        """The sum of the weighted losses since the last call, without the coefficient."""
        total = sum(each.item() for each in self._kept)
        self._kept = []
        return total
