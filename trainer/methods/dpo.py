"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290)."""

import torch
import torch.nn.functional as F

from trainer.methods.pair_scores import PairLosses, PairScores


def dpo(pairs: PairScores, *, beta: float, loss: str, label_smoothing: float, sft_weight: float) -> PairLosses:
    """With m = (log p - log p_ref)(chosen) - (log p - log p_ref)(rejected) and the smoothing e, "sigmoid" is

        -(1 - e) log sigmoid(beta m) - e log sigmoid(-beta m)

    (equation 7; e: Mitchell 2023, "A note on DPO with noisy preferences"). In "sigmoid_norm" and "ipo", log p is the
    mean over an answer's tokens; "ipo" is (m - 1 / (2 beta))^2 (Azar et al. 2023, arXiv:2310.12036, equation 17). To
    each, `sft_weight` adds the better answer's mean loss per token (Pang et al. 2024, arXiv:2404.19733, equation 1).

    The reward of an answer is beta (log p - log p_ref).
    """
    chosen = pairs.chosen - pairs.reference_chosen
    rejected = pairs.rejected - pairs.reference_rejected
    if loss != "sigmoid":
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    margin = chosen - rejected
    losses = (margin - 1 / (2 * beta)) ** 2 if loss == "ipo" else _smoothed(beta * margin, label_smoothing)
    if sft_weight:
        losses = losses - sft_weight * pairs.chosen / pairs.chosen_tokens
    return PairLosses(losses, beta * chosen, beta * rejected)


def _smoothed(logits: torch.Tensor, smoothing: float) -> torch.Tensor:
    losses = -(1 - smoothing) * F.logsigmoid(logits)
    return losses - smoothing * F.logsigmoid(-logits) if smoothing else losses
