"""What a run minimises, behind one interface: the loop does not know which method it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from dataset.document import Document
from trainer.data.items import Item
from trainer.data.packing import PackedBatch

EMPTY_DOCUMENT = Document(input_ids=[0, 0], supervised=[False, True])


@dataclass(frozen=True)
class Score:
    """What a step or an evaluation says of the model apart from its loss. None is what its method does not know."""

    token_accuracy: float | None = None
    """Fraction of the supervised tokens that the model ranks first."""
    reward_accuracy: float | None = None
    """Fraction of pairs whose better answer has the higher reward, or of rated answers on the side of their rating."""
    reward_margin: float | None = None
    """Mean reward of the better answers less that of the worse ones."""
    chosen_reward: float | None = None
    """Mean reward of the better answers, or of those rated as good."""
    rejected_reward: float | None = None
    chosen_tokens: float | None = None
    """Mean supervised tokens of the better answers, or of those rated as good."""
    rejected_tokens: float | None = None


class Objective(Protocol):
    """Its sums add up over micro-batches and ranks. The first of them, divided by the weight, is the loss."""

    sums: int
    """How many there are."""
    empty: Item
    """An item that means nothing, with as many documents as every other."""

    def __call__(self, losses: torch.Tensor, correct: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """The sums, in fp32. `losses` are the token losses in nats, summed over each document [D], or over the whole
        batch if it has no answers to tell apart []. `correct` is how many tokens the model ranks first, likewise."""

    def weight(self, items: int, targets: int) -> int:
        """What the sums over so many items with so many supervised tokens are divided by."""

    def score(self, sums: Sequence[float], weight: int) -> Score: ...


class AnswerObjective:
    """Supervised fine-tuning: the mean over all supervised tokens."""

    sums = 2
    empty: Item = EMPTY_DOCUMENT

    def __call__(self, losses: torch.Tensor, correct: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        return torch.stack([losses, correct])

    def weight(self, items: int, targets: int) -> int:
        return targets

    def score(self, sums: Sequence[float], weight: int) -> Score:
        return Score(token_accuracy=sums[1] / weight)
