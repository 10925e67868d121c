"""What a model makes of pairs of answers, and what a method makes of that."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PairScores:
    """P pairs. Each tensor is [P], in fp32."""

    chosen: torch.Tensor
    """Sum of the log probabilities of the better answer's tokens, in nats."""
    rejected: torch.Tensor
    """That of the worse answer."""
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor
    reference_chosen: torch.Tensor
    """`chosen` by the model before training; zeros for a method without a reference."""
    reference_rejected: torch.Tensor


@dataclass(frozen=True)
class PairLosses:
    """P pairs. Each tensor is [P], in fp32."""

    losses: torch.Tensor
    chosen_rewards: torch.Tensor
    rejected_rewards: torch.Tensor
