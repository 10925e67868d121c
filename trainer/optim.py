"""The optimizer, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable

import torch

from contract.recipe import Optimizer, Schedule

_DEFAULT_WARMUP_RATIO = 0.03


def make_optimizer(parameters: Iterable[torch.nn.Parameter], recipe: Optimizer) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), all parameters updated in one kernel."""
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def clip_gradients(parameters: Iterable[torch.nn.Parameter], max_norm: float | None) -> float:
    """Scales the gradients down to `max_norm` in place. Returns their L2 norm before that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_norm is not None and norm > max_norm:
        torch._foreach_mul_(gradients, max_norm / float(norm))
    return float(norm)


def warmup_steps(schedule: Schedule, total_steps: int) -> int:
    if schedule.warmup_steps is not None:
        return schedule.warmup_steps
    ratio = _DEFAULT_WARMUP_RATIO if schedule.warmup_ratio is None else schedule.warmup_ratio
    return math.ceil(ratio * total_steps)


def learning_rate_factor(schedule: Schedule, step: int, total_steps: int) -> float:
    """Share of the peak learning rate at optimizer step `step`, of 1 to `total_steps`; above 0 and at most 1.

    Rises in a line over the warm-up, then falls to zero at the step after the last one: a half cosine (Loshchilov &
    Hutter 2017, arXiv:1608.03983) or a line. No step is wasted on a rate of zero.
    """
    warmup = warmup_steps(schedule, total_steps)
    if step <= warmup:
        return step / (warmup + 1)
    progress = (step - 1 - warmup) / (total_steps - warmup)
    match schedule.type:
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return 1 - progress
        case "constant":
            return 1.0
