"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306)."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class KtoOptions:
    beta: float
    desirable_weight: float
    undesirable_weight: float


def kto(log_ratios: torch.Tensor, desirable: torch.Tensor, baseline: torch.Tensor, options: KtoOptions) -> torch.Tensor:
    """Losses [R] of R rated answers. `log_ratios` [R] are log p - log p_ref, `desirable` [R] is bool, and `baseline` is
    z_0, a scalar without a gradient. With the weight of its rating, an answer's loss is

        weight (1 - sigmoid(beta (log_ratio - z_0)))    if it is good
        weight (1 - sigmoid(beta (z_0 - log_ratio)))    if it is bad

    (equation 8).
    """
    sign = torch.where(desirable, 1.0, -1.0)
    weight = torch.where(desirable, options.desirable_weight, options.undesirable_weight)
    return weight * (1 - torch.sigmoid(options.beta * sign * (log_ratios - baseline)))


def kl_baseline(log_ratio_sum: float, answers: int) -> float:
    """z_0, an estimate of the divergence from the reference: the mean log ratio of answers that belong to other
    prompts, and not below zero (section 4.2)."""
    return max(0.0, log_ratio_sum / answers)
