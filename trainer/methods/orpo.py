"""Odds ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691)."""

import torch
import torch.nn.functional as F

from trainer.methods.pair_scores import PairLosses, PairScores

_NEAREST_TO_ZERO = -1e-6
"""Of a mean log probability. At zero the odds are infinite."""


def orpo(pairs: PairScores, *, beta: float) -> PairLosses:
    """With log p as the mean over an answer's tokens and odds(p) = p / (1 - p),

        -log p(chosen) - beta log sigmoid(log odds(p(chosen)) - log odds(p(rejected)))

    (equations 6 and 7; beta is the paper's lambda). The reward of an answer is beta log p.
    """
    chosen, rejected = pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens
    ratio = _log_odds(chosen) - _log_odds(rejected)
    losses = -chosen - beta * F.logsigmoid(ratio)
    return PairLosses(losses, beta * chosen, beta * rejected)


def _log_odds(log_probability: torch.Tensor) -> torch.Tensor:
    below_one = log_probability.clamp(max=_NEAREST_TO_ZERO)
    return below_one - torch.log(-torch.expm1(below_one))
