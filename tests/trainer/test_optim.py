import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contract.recipe import Schedule
from trainer.optim import clip_gradients, learning_rate_factor, warmup_steps

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
