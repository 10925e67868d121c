"""The optimizer, and the learning rate as a pure function of the step."""

import functools
import math
from collections.abc import Callable, Iterable

import torch

from contract.recipe import Optimizer, Schedule

_DEFAULT_WARMUP_RATIO = 0.03
_RATIO = "lr_ratio"
"""In an optimizer's group: how many times the learning rate its parameters have."""


def make_optimizer(
    parameters: Iterable[torch.nn.Parameter | tuple[str, torch.nn.Parameter]], recipe: Optimizer
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), all parameters of a group updated in one kernel; or with its
    moments in 8 bits, by blocks of 256 (Dettmers et al. 2022, arXiv:2110.02861), on a CPU too.

    As in torch, the parameters may come with their names. LoRA+ (Hayou et al. 2024, arXiv:2402.12354) needs them: B
    has a group of its own, whose learning rate is `lora_plus_ratio` times the others'. Else there is one group.
    """
    named = [parameter if isinstance(parameter, tuple) else ("", parameter) for parameter in parameters]
    trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups = [{"params": [parameter for _, parameter in trained], _RATIO: 1.0}]
    if recipe.lora_plus_ratio is not None:
        fast = [parameter for name, parameter in trained if _is_b(name)]
        if not fast:
            raise ValueError("LoRA+ needs the parameters' names")
        slow = [parameter for name, parameter in trained if not _is_b(name)]
        groups = [{"params": slow, _RATIO: 1.0}, {"params": fast, _RATIO: recipe.lora_plus_ratio}]
    optimizer = _kind(recipe)(
        groups,
        lr=recipe.learning_rate,
        betas=(recipe.beta1, recipe.beta2),
        weight_decay=recipe.weight_decay,
    )
    set_learning_rate(optimizer, recipe.learning_rate)
    return optimizer


def _kind(recipe: Optimizer) -> Callable[..., torch.optim.Optimizer]:
    if recipe.type == "adamw_8bit":
        from trainer.engines.adamw_8bit import AdamW8bit  # takes more than a second to import

        return AdamW8bit
    return functools.partial(torch.optim.AdamW, fused=True)


def _is_b(name: str) -> bool:
    return "lora_B." in name or "lora_embedding_B." in name


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Each group's, by its ratio."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group[_RATIO]


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
