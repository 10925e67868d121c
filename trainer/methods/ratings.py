"""The mean over rated answers of KTO's loss."""

from collections.abc import Sequence

import torch

from trainer.data.items import Item, Rating
from trainer.data.packing import PackedBatch
from trainer.methods.kto import KtoOptions, kto
from trainer.methods.objective import EMPTY_DOCUMENT, Score


class RatingObjective:
    sums = 7
    empty: Item = Rating(EMPTY_DOCUMENT, EMPTY_DOCUMENT, desirable=True)

    def __init__(self, options: KtoOptions) -> None:
        self._options = options

    def __call__(self, losses: torch.Tensor, correct: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        answers = batch.answers
        assert answers is not None
        log_ratios = -losses - answers.reference
        total = kto(log_ratios, answers.desirable, answers.baseline, self._options).sum()
        good = answers.desirable.float()
        rewards = self._options.beta * log_ratios.detach()
        side = torch.where(answers.desirable, 1.0, -1.0)
        right = (side * (log_ratios.detach() - answers.baseline) > 0).float()
        tokens = answers.tokens.float()
        known = (right, good, rewards * good, rewards * (1 - good), tokens * good, tokens * (1 - good))
        return torch.stack([total, *(each.sum() for each in known)])

    def weight(self, items: int, targets: int) -> int:
        return items

    def score(self, sums: Sequence[float], weight: int) -> Score:
        _, right, good, good_reward, bad_reward, good_tokens, bad_tokens = sums
        bad = weight - good
        chosen = good_reward / good if good else None
        rejected = bad_reward / bad if bad else None
        return Score(
            reward_accuracy=right / weight,
            reward_margin=None if chosen is None or rejected is None else chosen - rejected,
            chosen_reward=chosen,
            rejected_reward=rejected,
            chosen_tokens=good_tokens / good if good else None,
            rejected_tokens=bad_tokens / bad if bad else None,
        )
