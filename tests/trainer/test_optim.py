import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.recipe import Optimizer, Schedule
from trainer.optim import clip_gradients, learning_rate_factor, make_optimizer, set_learning_rate, warmup_steps

kinds = st.sampled_from(["cosine", "linear", "constant"])


@given(kinds, st.integers(1, 300), st.floats(0, 1))
def test_the_learning_rate_stays_above_zero_and_within_its_peak(kind: str, total: int, ratio: float) -> None:
    schedule = Schedule(type=kind, warmup_ratio=ratio)
    factors = [learning_rate_factor(schedule, step, total) for step in range(1, total + 1)]
    assert all(0 < factor <= 1 for factor in factors)


@given(kinds, st.integers(2, 300), st.floats(0, 0.9))
def test_it_rises_over_the_warm_up_reaches_the_peak_and_never_rises_again(kind: str, total: int, ratio: float) -> None:
    schedule = Schedule(type=kind, warmup_ratio=ratio)
    warmup = warmup_steps(schedule, total)
    factors = [learning_rate_factor(schedule, step, total) for step in range(1, total + 1)]
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    if warmup < total:
        assert factors[warmup] == 1


def test_warm_up_is_three_hundredths_of_the_run_where_none_is_given() -> None:
    assert warmup_steps(Schedule(), 1000) == 30
    assert warmup_steps(Schedule(warmup_steps=7), 1000) == 7
    assert warmup_steps(Schedule(warmup_steps=0), 1000) == 0


@pytest.mark.parametrize(("limit", "expected"), [(1.0, 1.0), (10.0, 5.0), (None, 5.0)])
def test_clipping_reports_the_norm_before_and_leaves_at_most_the_limit(limit: float | None, expected: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert clip_gradients(parameters, limit) == pytest.approx(5.0)
    assert torch.tensor([parameters[0].grad, parameters[1].grad]).norm() == pytest.approx(expected)


def test_lora_plus_gives_b_its_multiple_of_the_learning_rate_at_every_step() -> None:
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
