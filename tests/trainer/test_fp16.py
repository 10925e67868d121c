"""fp16 with a real GradScaler, on a CPU too: slow there, and right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.events import Metric, Started
from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from tests.trainer.conftest import Outcome, at_once
from trainer.data import load_data
from trainer.ddp import Ddp
from trainer.engine import Update
from trainer.loop import check_finite
from trainer.model import load_model
from trainer.packing import pack
from trainer.ranks import start_ranks

RunTrainer = Callable[..., Outcome]
LEARNING_RATE = 1e-2


def started(recipe: dict[str, Any], cache: Path) -> tuple[Ddp, list[Any]]:
    read = Recipe.model_validate(recipe | {"precision": "fp16"})
    torch.manual_seed(1)
    module = load_model(read, torch.float16, torch.device("cpu")).train()
    engine = Ddp(module, read.optimizer, start_ranks(read, "fp16"), fp16=True)
    return engine, [load_data(read, cache).train[index] for index in range(4)]


def step(engine: Ddp, documents: list[Any], scale: float) -> Update:
    engine.accumulate(pack(documents), scale, exchange=True)
    return engine.update(LEARNING_RATE, max_grad_norm=1.0)


def test_a_step_whose_gradients_overflow_is_skipped_and_the_next_one_is_taken_at_a_lower_scale(
    recipe: dict[str, Any], cache: Path
) -> None:
    engine, documents = started(recipe, cache)
    mean = 1 / sum(document.targets for document in documents)
    assert not step(engine, documents, mean).overflow
    before = {name: tensor.clone() for name, tensor in engine.adapter().items()}
    moments = {name: tensor.clone() for name, tensor in engine.optimizer_state().items()}

    planted = step(engine, documents, 1e30)
    assert planted.overflow
    assert planted.grad_norm is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.adapter().items())
    assert all(torch.equal(tensor, moments[name]) for name, tensor in engine.optimizer_state().items())

    recovered = step(engine, documents, mean)
    assert planted.loss_scale is not None
    assert recovered.loss_scale == planted.loss_scale / 2
    assert recovered.grad_norm is not None
    assert any(not torch.equal(tensor, before[name]) for name, tensor in engine.adapter().items())


def test_the_loss_scale_survives_being_saved(recipe: dict[str, Any], cache: Path) -> None:
    engine, documents = started(recipe, cache)
    step(engine, documents, 1e30)
    other, _ = started(recipe, cache)
    other.load_scaler_state(engine.scaler_state())
    assert other.scaler_state() == engine.scaler_state() == {"scale": 2**15, "clean_steps": 0}
    assert step(other, documents, 1e-3).loss_scale == 2**15


def test_fp16_has_nearly_the_losses_of_fp32_and_tells_of_its_scale(
    recipe: dict[str, Any], run_trainer: RunTrainer
) -> None:
    exact, rounded = at_once(
        lambda: run_trainer(recipe, name="fp32"), lambda: run_trainer(recipe | {"precision": "fp16"}, name="fp16")
    )
    assert rounded.exit_code == 0, rounded.output
    (start,) = (event for event in rounded.events if isinstance(event, Started))
    assert start.precision == "fp16"
    metrics = [event for event in rounded.events if isinstance(event, Metric)]
    expected = [event for event in exact.events if isinstance(event, Metric)]
    assert [metric.step for metric in metrics] == [1, 2, 3, 4, 5, 6]
    assert all(metric.loss_scale and not metric.overflow for metric in metrics)
    assert [metric.loss for metric in metrics] == pytest.approx([metric.loss for metric in expected], rel=0.01)
    assert all(metric.loss_scale is None for metric in expected)


def test_a_run_that_has_learned_nothing_for_overflows_fails_in_words_for_its_owner(
    recipe: dict[str, Any], run_trainer: RunTrainer
) -> None:
    """B starts at zero, and stays there: so does the loss."""
    recipe |= {"precision": "fp16", "adapter": {"r": 4, "alpha": 1e30}, "schedule": {"max_steps": 3}}
    outcome = run_trainer(recipe)
    assert outcome.exit_code == 1
    assert outcome.failure.param == "precision"
    assert "overflowed in every one of 3 steps" in outcome.failure.message
    metrics = [event for event in outcome.events if isinstance(event, Metric)]
    assert [(metric.overflow, metric.grad_norm, metric.skipped_steps) for metric in metrics] == [
        (True, None, step) for step in (1, 2, 3)
    ]
    assert [metric.loss_scale for metric in metrics] == [2**16, 2**15, 2**14]


def test_gradients_that_overflow_at_the_least_scale_end_the_run() -> None:
    check_finite(3, 2.0, Update(grad_norm=None, loss_scale=2.0**16))
    with pytest.raises(InputError, match="overflow at a loss scale of 2") as refused:
        check_finite(3, 2.0, Update(grad_norm=None, loss_scale=2.0))
    assert refused.value.failure.reason is FailureReason.LOSS_NOT_FINITE
