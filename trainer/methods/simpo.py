"""Simple preference optimisation (Meng et al. 2024, arXiv:2405.14734)."""

import torch.nn.functional as F

from trainer.methods.pair_scores import PairLosses, PairScores


def simpo(pairs: PairScores, *, beta: float, margin: float) -> PairLosses:
    """With r = beta log p, and log p as the mean over an answer's tokens,

        -log sigmoid(r(chosen) - r(rejected) - margin)

    (equation 6; margin is the paper's gamma). r is the reward of an answer.
    """
    chosen = beta * pairs.chosen / pairs.chosen_tokens
    rejected = beta * pairs.rejected / pairs.rejected_tokens
    return PairLosses(-F.logsigmoid(chosen - rejected - margin), chosen, rejected)
