from collections.abc import Iterator
from typing import Literal, get_args

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from hypothesis import given
from hypothesis import strategies as st

from contract.recipe import Optimizer, Schedule
from trainer.engines.optim import (
    clip_gradients,
    learning_rate_factor,
    make_optimizer,
    restore_optimizer,
    set_learning_rate,
    warmup_steps,
)

Kind = Literal["cosine", "linear", "constant"]
kinds: st.SearchStrategy[Kind] = st.sampled_from(get_args(Kind))


@given(kinds, st.integers(1, 300), st.floats(0, 1))
def test_learning_rate_stays_within_its_peak(kind: Kind, total: int, ratio: float) -> None:
    schedule = Schedule(type=kind, warmup_ratio=ratio)
    factors = [learning_rate_factor(schedule, step, total) for step in range(1, total + 1)]
    assert all(0 < factor <= 1 for factor in factors)


@given(kinds, st.integers(2, 300), st.floats(0, 0.9))
def test_learning_rate_rises_once_and_falls(kind: Kind, total: int, ratio: float) -> None:
    schedule = Schedule(type=kind, warmup_ratio=ratio)
    warmup = warmup_steps(schedule, total)
    factors = [learning_rate_factor(schedule, step, total) for step in range(1, total + 1)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    if warmup < total:
        assert factors[warmup] == 1


@pytest.mark.parametrize(
    ("kind", "factors"),
    [
        # (1 + cos(pi k / 8)) / 2 and 1 - k / 8, at the k-th step after the warm-up of two in ten.
        ("cosine", [1 / 3, 2 / 3, 1, 0.96194, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.03806]),
        ("linear", [1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_learning_rate_follows_its_schedule(kind: Kind, factors: list[float]) -> None:
    schedule = Schedule(type=kind, warmup_ratio=0.2)
    assert [learning_rate_factor(schedule, step, 10) for step in range(1, 11)] == pytest.approx(factors, abs=1e-6)


def test_warm_up_has_a_share_steps_or_default() -> None:
    assert warmup_steps(Schedule(), 1000) == 30
    assert warmup_steps(Schedule(warmup_ratio=0.1), 1000) == 100
    assert warmup_steps(Schedule(warmup_ratio=0), 1000) == 0
    assert warmup_steps(Schedule(warmup_steps=7), 1000) == 7
    assert warmup_steps(Schedule(warmup_steps=0), 1000) == 0


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1.0), (10.0, 5.0), (None, 5.0)])
def test_clipping_reports_the_norm_and_limits_it(limit: float | None, expected: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert clip_gradients(parameters, limit) == pytest.approx(5.0)
    assert torch.tensor([parameters[0].grad, parameters[1].grad]).norm() == pytest.approx(expected)


def test_lora_plus_multiplies_the_rate_of_b() -> None:
    names = ["q.lora_A.default.weight", "q.lora_B.default.weight", "e.lora_embedding_B.default", "q.bias", "frozen"]
    named = {name: torch.nn.Parameter(torch.zeros(2), requires_grad=name != "frozen") for name in names}
    optimizer = make_optimizer(named.items(), Optimizer(learning_rate=1e-3, lora_plus_ratio=16))
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 16e-3]
    set_learning_rate(optimizer, 1e-2)
    for parameter in named.values():
        parameter.grad = torch.ones(2) if parameter.requires_grad else None
    optimizer.step()
    # Adam's first step is as long as its learning rate.
    moved = [-parameter[0].item() for parameter in named.values()]
    assert moved == pytest.approx([1e-2, 0.16, 0.16, 1e-2, 0.0], rel=1e-5)


def test_lora_plus_without_names_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="names"):
        make_optimizer([torch.nn.Parameter(torch.zeros(2))], Optimizer(lora_plus_ratio=2))


def test_without_lora_plus_there_is_one_group() -> None:
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    (group,) = make_optimizer(parameters, Optimizer(learning_rate=0.5)).param_groups
    assert (group["lr"], group["params"]) == (0.5, parameters)


def some_parameters(device: str = "cpu") -> dict[str, torch.nn.Parameter]:
    """A and B of 8,192 numbers, and a bias with too few to be worth 8 bits."""
    torch.manual_seed(0)
    shapes = {"lora_A.default.weight": (16, 512), "lora_B.default.weight": (512, 16), "bias": (16,)}
    return {name: torch.nn.Parameter(torch.randn(shape).to(device)) for name, shape in shapes.items()}


def descend(named: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> Iterator[float]:
    for step in steps:
        torch.manual_seed(step)
        loss = sum(((p - torch.randn(p.shape).to(p.device)) ** 2).sum() for p in named.values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def test_8_bit_moments_take_a_quarter() -> None:
    ways, sizes = {}, {}
    for kind in ("adamw", "adamw_8bit"):
        named = some_parameters()
        recipe = Optimizer(type=kind, learning_rate=1e-2, weight_decay=0.1, lora_plus_ratio=4)
        optimizer = make_optimizer(named.items(), recipe)
        ways[kind] = list(descend(named, optimizer, range(20)))
        state = optimizer.state[named["lora_A.default.weight"]]
        sizes[kind] = sum(t.nbytes for t in state.values() if torch.is_tensor(t) and t.numel() > 256)
    assert ways["adamw_8bit"] == pytest.approx(ways["adamw"], rel=1e-3)
    assert ways["adamw_8bit"] != ways["adamw"]
    assert sizes["adamw_8bit"] == sizes["adamw"] / 4


def test_8_bit_moments_resume_exactly() -> None:
    recipe = Optimizer(type="adamw_8bit", learning_rate=1e-2)
    whole, parts = some_parameters(), some_parameters()
    expected = list(descend(whole, make_optimizer(whole.items(), recipe), range(6)))
    first = make_optimizer(parts.items(), recipe)
    losses = list(descend(parts, first, range(3)))
    state = {
        index: {key: torch.as_tensor(value).clone() for key, value in first.state[parameter].items()}
        for index, parameter in enumerate(parts.values())
    }
    second = make_optimizer(parts.items(), recipe)
    restore_optimizer(second, state)
    assert {type(values["step"]) for values in second.state.values()} == {int}  # As the kernels of a GPU want it.
    losses += descend(parts, second, range(3, 6))
    assert losses == expected
    for name, parameter in whole.items():
        assert torch.equal(parameter, parts[name])


@pytest.mark.gpu
def test_8_bit_moments_work_on_a_gpu() -> None:
    ways = []
    for kind in ("adamw", "adamw_8bit"):
        named = some_parameters("cuda")
        ways.append(list(descend(named, make_optimizer(named.items(), Optimizer(type=kind)), range(20))))
    assert ways[1] == pytest.approx(ways[0], rel=1e-3)


def test_optimizer_class_follows_the_recipe() -> None:
    kinds = [type(make_optimizer(some_parameters().items(), Optimizer(type=kind))) for kind in ("adamw", "adamw_8bit")]
    assert kinds[0] is torch.optim.AdamW
    assert kinds[1] is AdamW8bit


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_optimizer_is_told_what_the_recipe_says(kind: Literal["adamw", "adamw_8bit"]) -> None:
    recipe = Optimizer(type=kind, learning_rate=3e-3, weight_decay=0.2, beta1=0.8, beta2=0.95)
    (group,) = make_optimizer(some_parameters().items(), recipe).param_groups
    assert (group["lr"], group["weight_decay"], tuple(group["betas"])) == (3e-3, 0.2, (0.8, 0.95))
