"""The mean over pairs of a loss that compares two answers."""

from collections.abc import Callable, Sequence

import torch

from trainer.data.items import Item, Pair
from trainer.data.packing import PackedBatch
from trainer.methods.objective import EMPTY_DOCUMENT, Score
from trainer.methods.pair_scores import PairLosses, PairScores


class PairObjective:
    sums = 6
    empty: Item = Pair(EMPTY_DOCUMENT, EMPTY_DOCUMENT)

    def __init__(self, loss: Callable[[PairScores], PairLosses]) -> None:
        self._loss = loss

    def __call__(self, losses: torch.Tensor, correct: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        assert batch.answers is not None
        chosen, rejected = (-losses).view(-1, 2).unbind(1)
        chosen_tokens, rejected_tokens = batch.answers.tokens.float().view(-1, 2).unbind(1)
        reference = batch.answers.reference.view(-1, 2).unbind(1)
        found = self._loss(PairScores(chosen, rejected, chosen_tokens, rejected_tokens, *reference))
        rewards = found.chosen_rewards.detach(), found.rejected_rewards.detach()
        wins = (rewards[0] > rewards[1]).float()
        return torch.stack([each.sum() for each in (found.losses, wins, *rewards, chosen_tokens, rejected_tokens)])

    def weight(self, items: int, targets: int) -> int:
        return items

    def score(self, sums: Sequence[float], weight: int) -> Score:
        wins, chosen, rejected, chosen_tokens, rejected_tokens = (each / weight for each in sums[1:])
        return Score(
            reward_accuracy=wins,
            reward_margin=chosen - rejected,
            chosen_reward=chosen,
            rejected_reward=rejected,
            chosen_tokens=chosen_tokens,
            rejected_tokens=rejected_tokens,
        )
