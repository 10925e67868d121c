"""The formulas, on numbers: no model."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from contract.method import Method
from trainer.methods.dpo import dpo
from trainer.methods.kto import KtoOptions, kl_baseline, kto
from trainer.methods.orpo import orpo
from trainer.methods.pair_scores import PairScores
from trainer.methods.simpo import simpo

DPO: dict[str, Any] = {"beta": 0.1, "loss": "sigmoid", "label_smoothing": 0.0, "sft_weight": 0.0}

log_probability = st.floats(-300, -0.01)
pairs = st.builds(
    lambda sums, tokens: PairScores(*(torch.tensor([each]) for each in (*sums[:2], *tokens, *sums[2:]))),
    st.tuples(*[log_probability] * 4),
    st.tuples(*[st.integers(1, 200).map(float)] * 2),
)


def swapped(pair: PairScores) -> PairScores:
    return PairScores(
        pair.rejected,
        pair.chosen,
        pair.rejected_tokens,
        pair.chosen_tokens,
        pair.reference_rejected,
        pair.reference_chosen,
    )


def at_start(pair: PairScores) -> PairScores:
    """As before the first step: the model is its own reference."""
    return PairScores(pair.chosen, pair.rejected, pair.chosen_tokens, pair.rejected_tokens, pair.chosen, pair.rejected)


@given(pairs, st.sampled_from(["sigmoid", "sigmoid_norm"]), st.floats(0, 0.5))
def test_dpo_starts_at_the_logarithm_of_two(pair: PairScores, loss: str, smoothing: float) -> None:
    found = dpo(at_start(pair), **DPO | {"loss": loss, "label_smoothing": smoothing})
    assert found.losses.item() == pytest.approx(math.log(2), abs=1e-6)


@given(pairs, st.sampled_from(["sigmoid", "sigmoid_norm", "ipo"]))
def test_swapped_answers_have_the_opposite_margin(pair: PairScores, loss: str) -> None:
    margins = []
    for each in (pair, swapped(pair)):
        found = dpo(each, **DPO | {"loss": loss})
        margins.append((found.chosen_rewards - found.rejected_rewards).item())
    assert margins[0] == -margins[1]


@given(pairs)
def test_half_smoothing_does_not_care_which_is_better(pair: PairScores) -> None:
    even = DPO | {"label_smoothing": 0.5}
    assert dpo(pair, **even).losses.item() == pytest.approx(dpo(swapped(pair), **even).losses.item(), rel=1e-5)


@given(pairs, st.floats(0.01, 5))
def test_dpo_is_its_formula(pair: PairScores, beta: float) -> None:
    margin = (pair.chosen - pair.reference_chosen - pair.rejected + pair.reference_rejected).double()
    found = dpo(pair, **DPO | {"beta": beta, "sft_weight": 0.5})
    of_answer = pair.chosen / pair.chosen_tokens
    expected = -F.logsigmoid(beta * margin) - 0.5 * of_answer
    assert found.losses.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)


@given(pairs, st.floats(0.01, 5))
def test_ipo_pulls_the_mean_margin_to_its_aim(pair: PairScores, beta: float) -> None:
    chosen = (pair.chosen - pair.reference_chosen) / pair.chosen_tokens
    rejected = (pair.rejected - pair.reference_rejected) / pair.rejected_tokens
    expected = (chosen.double() - rejected.double() - 1 / (2 * beta)) ** 2
    found = dpo(pair, **DPO | {"beta": beta, "loss": "ipo"})
    assert found.losses.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


@given(pairs, st.floats(0.01, 5))
def test_orpo_is_its_formula(pair: PairScores, beta: float) -> None:
    better, worse = (
        torch.exp((sums / tokens).double()).clamp(max=1 - 1e-6)
        for sums, tokens in ((pair.chosen, pair.chosen_tokens), (pair.rejected, pair.rejected_tokens))
    )
    ratio = torch.log(better / (1 - better)) - torch.log(worse / (1 - worse))
    expected = -torch.log(better) - beta * F.logsigmoid(ratio)
    assert orpo(pair, beta=beta).losses.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)


def test_orpo_of_a_certain_answer_is_finite() -> None:
    certain = torch.zeros(1, requires_grad=True)
    ones, unlikely = torch.ones(1), torch.tensor([-5.0])
    found = orpo(PairScores(certain, unlikely, ones, ones, torch.zeros(1), torch.zeros(1)), beta=0.1)
    found.losses.sum().backward()
    assert certain.grad is not None
    assert found.losses.isfinite().all()
    assert certain.grad.isfinite().all()


@given(pairs, st.floats(0.01, 5), st.floats(0, 5))
def test_simpo_is_its_formula(pair: PairScores, beta: float, margin: float) -> None:
    rewards = [
        beta * (sums / tokens)
        for sums, tokens in ((pair.chosen, pair.chosen_tokens), (pair.rejected, pair.rejected_tokens))
    ]
    found = simpo(pair, beta=beta, margin=margin)
    assert found.losses.item() == pytest.approx(-F.logsigmoid(rewards[0] - rewards[1] - margin).item(), rel=1e-5)


@given(st.floats(-50, 50), st.booleans(), st.floats(0, 20))
def test_kto_is_its_formula(log_ratio: float, desirable: bool, baseline: float) -> None:
    options = KtoOptions(beta=0.1, desirable_weight=1.5, undesirable_weight=0.5)
    (found,) = kto(torch.tensor([log_ratio]), torch.tensor([desirable]), torch.tensor(baseline), options)
    distance = log_ratio - baseline if desirable else baseline - log_ratio
    weight = 1.5 if desirable else 0.5
    assert found.item() == pytest.approx(weight * (1 - 1 / (1 + math.exp(-0.1 * distance))), abs=1e-5)


def test_divergence_is_never_negative() -> None:
    assert (kl_baseline(-3.0, 2), kl_baseline(3.0, 2)) == (0.0, 1.5)


@pytest.mark.parametrize("type", ["sft", "dpo", "orpo", "simpo", "kto"])
def test_each_method_has_its_options_alone(type: str) -> None:
    method = Method.model_validate({"type": type})
    given = {name: value for name, value in method.model_dump().items() if value is not None}
    assert given == {"type": type, **method.options}
    assert Method.model_validate(given) == method
    for name in set(Method.model_fields) - set(given):
        value = "ipo" if name == "loss" else 0.5
        with pytest.raises(
            ValueError, match=f'{name} is .*, and "{type}" has no such option: leave it out, or set type to'
        ):
            Method.model_validate({"type": type, name: value})
