"""fp16 with a real GradScaler, on a CPU too: slow there, and right."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.events import MetricEvent, StartedEvent
from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from contract.run_dir import RunDir
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome
from trainer.data.examples import load_data
from trainer.data.packing import pack
from trainer.engines.ddp import Ddp
from trainer.engines.engine import Update
from trainer.loop import check_finite
from trainer.model.base_model import load_model
from trainer.ranks import start_ranks

LEARNING_RATE = 1e-2


def started(recipe: dict[str, Any], cache: Path) -> tuple[Ddp, list[Any]]:
    read = Recipe.model_validate(recipe | {"precision": "fp16"})
    torch.manual_seed(1)
    module = load_model(read, torch.float16, torch.device("cpu")).train()
    engine = Ddp(module, read.optimizer, start_ranks(read, "fp16"), fp16=True)
    return engine, [load_data(read, cache).train[index] for index in range(4)]


def step(engine: Ddp, documents: list[Any], scale: float) -> Update:
    engine.accumulate(pack(documents), scale, sync_gradients=True)
    return engine.update(LEARNING_RATE, max_grad_norm=1.0)


def test_overflowing_step_is_skipped_at_lower_scale(recipe: dict[str, Any], cache: Path) -> None:
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


def test_loss_scale_survives_being_saved(recipe: dict[str, Any], cache: Path) -> None:
    engine, documents = started(recipe, cache)
    step(engine, documents, 1e30)
    other, _ = started(recipe, cache)
    other.load_scaler_state(engine.scaler_state())
    assert other.scaler_state() == engine.scaler_state() == {"scale": 2**15, "clean_steps": 0}
    assert step(other, documents, 1e-3).loss_scale == 2**15


def test_loss_scale_doubles_after_so_many_clean_steps(recipe: dict[str, Any], cache: Path) -> None:
    """As in DeepSpeed: see tests/trainer/engine_process.py."""
    engine, documents = started(recipe, cache)
    engine.load_scaler_state({"scale": 2**10, "clean_steps": 1999})
    step(engine, documents, 1e-3)
    assert engine.scaler_state() == {"scale": 2**11, "clean_steps": 0}


def test_skipped_step_holds_the_learning_rate(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    """Every step takes all examples, so that the losses can be compared."""
    recipe |= {"precision": "fp16", "batch": {"micro_batch_size": 12}, "schedule": {"epochs": 6, "warmup_steps": 0}}
    whole = train_here(recipe, tmp_path / "whole", cache, overflow_in=3)
    metrics = reported(whole)
    assert [metric.overflow for metric in metrics] == [False, False, True, False, False, False]
    assert [metric.skipped_steps for metric in metrics] == [0, 0, 1, 1, 1, 1]
    rates = [metric.learning_rate / 1e-2 for metric in metrics]
    assert rates == pytest.approx([(1 + math.cos(math.pi * k / 6)) / 2 for k in (0, 1, 2, 2, 3, 4)])
    losses = [metric.loss for metric in metrics]
    assert losses[3] == pytest.approx(losses[2], rel=1e-3)
    assert losses[2] < losses[1] * 0.99
    assert losses[4] < losses[3] * 0.99

    first = train_here(recipe, tmp_path / "first", cache, overflow_in=3, stop_in=4)
    (state,) = RunDir(first.folder).states.iterdir()
    rest = reported(train_here(recipe, tmp_path / "rest", cache, resume=state))
    assert [numbers(metric) for metric in rest] == [numbers(metric) for metric in metrics[4:]]


def reported(outcome: Outcome) -> list[MetricEvent]:
    return [event for event in outcome.events if isinstance(event, MetricEvent)]


def numbers(metric: MetricEvent) -> tuple[Any, ...]:
    return metric.step, metric.loss, metric.learning_rate, metric.loss_scale, metric.skipped_steps


def test_fp16_losses_are_near_those_of_fp32(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    exact = reported(train_here(recipe, tmp_path / "fp32", cache))
    rounded = train_here(recipe | {"precision": "fp16"}, tmp_path / "fp16", cache)
    (start,) = (event for event in rounded.events if isinstance(event, StartedEvent))
    assert start.precision == "fp16"
    metrics = reported(rounded)
    assert [metric.step for metric in metrics] == [1, 2, 3, 4, 5, 6]
    assert all(metric.loss_scale and not metric.overflow for metric in metrics)
    assert [metric.loss for metric in metrics] == pytest.approx([metric.loss for metric in exact], rel=0.01)
    assert all(metric.loss_scale is None for metric in exact)


def test_run_of_overflows_alone_fails_in_words(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    """B starts at zero, and stays there: so does the loss."""
    recipe |= {"precision": "fp16", "adapter": {"r": 4, "alpha": 1e30}, "schedule": {"max_steps": 3}}
    with pytest.raises(InputError, match="overflowed in every one of 3 steps") as failed:
        train_here(recipe, tmp_path / "run", cache)
    assert failed.value.failure.param == "precision"
    metrics = reported(Outcome(tmp_path / "run", 1, ""))
    assert [(metric.overflow, metric.grad_norm, metric.skipped_steps) for metric in metrics] == [
        (True, None, step) for step in (1, 2, 3)
    ]
    assert [metric.loss_scale for metric in metrics] == [2**16, 2**15, 2**14]


def test_overflow_at_the_least_scale_ends_the_run() -> None:
    check_finite(3, 2.0, Update(grad_norm=None, loss_scale=2.0**16))
    with pytest.raises(InputError, match="overflow at a loss scale of 2") as refused:
        check_finite(3, 2.0, Update(grad_norm=None, loss_scale=2.0))
    assert refused.value.failure.code is FailureCode.LOSS_NOT_FINITE
