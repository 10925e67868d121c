"""The trainer as a process, on a tiny model."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from contract.events import CheckpointEvent, DoneEvent, EvaluationEvent, MetricEvent, PhaseEvent, StartedEvent
from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from tests.trainer.adapters import documents_of
from tests.trainer.in_process_trainer import train_here
from tests.trainer.tiny_models import ROWS
from tests.trainer.trainer_process import Outcome, at_once
from trainer.data.examples import load_data
from trainer.model.quantize import keep_trainable, quantization

RunTrainer = Callable[..., Outcome]
EXHAUSTIVE = pytest.mark.exhaustive
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def events_of(outcome: Outcome, kind: type) -> list[Any]:
    return [event for event in outcome.events if isinstance(event, kind)]


@pytest.fixture
def evaluated(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"evaluation": {"fraction": 0.25}, "checkpointing": {"every_steps": 2}}


def test_run_reports_its_story_and_reloads(evaluated: dict[str, Any], model: Path, run_trainer: RunTrainer) -> None:
    outcome = run_trainer(evaluated)
    assert outcome.exit_code == 0, outcome.output
    assert {event.name for event in events_of(outcome, PhaseEvent)} == {"imports", "data", "model", "first_step"}
    (started,) = events_of(outcome, StartedEvent)
    assert (started.train_examples, started.eval_examples, started.total_steps) == (9, 3, 6)
    assert (started.precision, started.world_size) == ("fp32", 1)
    assert (started.packed, started.packing) == (True, "a small llama has the same loss and gradients packed")
    assert [event.step for event in events_of(outcome, EvaluationEvent)] == [0, 3, 6]
    saved = [(event.step, event.path, event.final) for event in events_of(outcome, CheckpointEvent)]
    assert saved == [
        (2, "checkpoints/step-000002", False),
        (3, "checkpoints/step-000003", False),
        (4, "checkpoints/step-000004", False),
        (6, "adapter", True),
    ]
    metrics = events_of(outcome, MetricEvent)
    assert [metric.step for metric in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1].loss < metrics[0].loss
    assert (metrics[-1].progress, metrics[-1].epoch, metrics[-1].eta_seconds) == (1.0, 2.0, 0.0)
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    assert done.completed
    assert done.eval_loss == pytest.approx(plain_eval_loss(evaluated, outcome.folder / "adapter"), rel=1e-5)


@pytest.mark.parametrize(
    ("adapter", "bits"),
    [
        ({"init": "pissa"}, None),
        pytest.param({"init": "olora"}, None, marks=pytest.mark.exhaustive),
        pytest.param({"init": "loftq"}, 4, marks=pytest.mark.exhaustive),
        # Which are also the head.
        ({"modules_to_save": ["embed_tokens"]}, None),
    ],
    ids=["pissa", "olora", "loftq", "embeddings trained whole"],
)
def test_adapter_of_any_kind_reloads_as_reported(
    evaluated: dict[str, Any], adapter: dict[str, Any], bits: int | None, tmp_path: Path, cache: Path
) -> None:
    evaluated |= {"adapter": {"r": 4, "alpha": 8} | adapter, "base_bits": bits}
    evaluated["optimizer"] = {"learning_rate": 1e-3, "lora_plus_ratio": 4}
    reloads_as_reported(evaluated, train_here(evaluated, tmp_path / "run", cache))


@pytest.mark.exhaustive
def test_adapter_trained_further_reloads_as_reported(evaluated: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    earlier = train_here(evaluated, tmp_path / "earlier", cache)
    evaluated["adapter"] = {"start_from": str(earlier.folder / "adapter")}
    evaluated["optimizer"] = {"learning_rate": 1e-3}
    further = train_here(evaluated, tmp_path / "further", cache)
    evaluations = events_of(further, EvaluationEvent)
    assert evaluations[0].eval_loss == pytest.approx(events_of(earlier, EvaluationEvent)[-1].eval_loss, rel=1e-5)
    assert evaluations[-1].eval_loss != pytest.approx(evaluations[0].eval_loss, rel=1e-3)
    reloads_as_reported(evaluated, further)


def test_other_seed_changes_start_and_dropout(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    """All examples are in each step, so that their order is none of it; and a learning rate that moves nothing."""
    recipe |= {"batch": {"micro_batch_size": 12}, "schedule": {"max_steps": 1}, "optimizer": {"learning_rate": 1e-9}}
    recipe["adapter"] = {"r": 4, "dropout": 0.5}
    one, same, other = (
        train_here(recipe | {"seed": seed}, tmp_path / name, cache)
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    starts = [load_file(run.folder / "adapter/adapter_model.safetensors") for run in (one, same, other)]
    for name, tensor in starts[0].items():
        assert torch.equal(tensor, starts[1][name])
        assert "lora_A" not in name or not torch.allclose(tensor, starts[2][name], atol=1e-3)
    dropped = [train_here(recipe | {"seed": 1, "adapter": {"r": 4}}, tmp_path / "whole", cache), one, same]
    norms = [events_of(run, MetricEvent)[0].grad_norm for run in dropped]
    assert norms[1] == norms[2] != norms[0]


def reloads_as_reported(recipe: dict[str, Any], outcome: Outcome) -> None:
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    assert done.eval_loss == pytest.approx(plain_eval_loss(recipe, outcome.folder / "adapter"), rel=1e-4)


def plain_eval_loss(recipe: dict[str, Any], adapter: Path) -> float:
    """By PEFT and transformers alone, one example at a time."""
    bits = recipe.get("base_bits")
    base = AutoModelForCausalLM.from_pretrained(
        recipe["model"],
        dtype=torch.float32,
        quantization_config=None if bits is None else quantization(bits, torch.float32),
    )
    if bits is not None:
        keep_trainable(base)
    adapted = PeftModel.from_pretrained(base, adapter).eval()
    total = tokens = 0.0
    for document in documents_of(load_data(Recipe.model_validate(recipe), adapter.parent / "cache").evaluation):
        ids = torch.tensor([document.input_ids])
        labels = torch.where(torch.tensor([document.supervised]), ids, -100)
        total += adapted(input_ids=ids, labels=labels).loss.item() * document.targets
        tokens += document.targets
    return total / tokens


@pytest.mark.slow
def test_batch_accumulation_and_ranks_train_alike(
    recipe: dict[str, Any], run_trainer: RunTrainer, tmp_path: Path, cache: Path
) -> None:
    """Twelve examples in windows of eight: an epoch's last window is partial. AdamW would hide a wrong scale of the
    gradients from the losses, but not from the norms."""
    runs = {
        "whole": train_here(recipe | {"batch": {"micro_batch_size": 8}}, tmp_path / "whole", cache),
        "accumulated": train_here(
            recipe | {"batch": {"micro_batch_size": 1, "gradient_accumulation_steps": 8}},
            tmp_path / "accumulated",
            cache,
        ),
        "two ranks": run_trainer(
            recipe | {"batch": {"micro_batch_size": 2, "gradient_accumulation_steps": 2}}, ranks=2, name="ranks"
        ),
    }
    assert runs["two ranks"].exit_code == 0, runs["two ranks"].output
    curves = {
        name: [(m.loss, m.grad_norm, m.tokens, m.supervised_tokens) for m in events_of(outcome, MetricEvent)]
        for name, outcome in runs.items()
    }
    assert len(curves["whole"]) == 4
    for name in ("accumulated", "two ranks"):
        for ours, expected in zip(curves[name], curves["whole"], strict=True):
            assert ours == pytest.approx(expected, rel=2e-4), name
    assert events_of(runs["two ranks"], StartedEvent)[0].world_size == 2


@pytest.mark.exhaustive
def test_two_ranks_evaluate_as_one_does(evaluated: dict[str, Any], run_trainer: RunTrainer) -> None:
    """Three examples held out: one rank has two of them, in as many micro-batches as the other."""
    evaluated["batch"] = {"micro_batch_size": 1, "gradient_accumulation_steps": 4}
    one, two = at_once(
        lambda: run_trainer(evaluated, name="one"),
        lambda: run_trainer(
            evaluated | {"batch": {"micro_batch_size": 1, "gradient_accumulation_steps": 2}}, ranks=2, name="two"
        ),
    )
    for outcome in (one, two):
        assert outcome.exit_code == 0, outcome.output
    losses = [[event.eval_loss for event in events_of(outcome, EvaluationEvent)] for outcome in (one, two)]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.exhaustive
def test_dropout_is_off_in_evaluation(evaluated: dict[str, Any], run_trainer: RunTrainer) -> None:
    evaluated["adapter"] = {"r": 4, "alpha": 8, "dropout": 0.5}
    dropping, whole = at_once(
        lambda: run_trainer(evaluated, name="dropping"),
        lambda: run_trainer(evaluated | {"adapter": {"r": 4, "alpha": 8}}, name="whole"),
    )
    assert dropping.exit_code == 0, dropping.output
    assert dropping.events[-1].eval_loss == pytest.approx(
        plain_eval_loss(evaluated, dropping.folder / "adapter"), rel=1e-5
    )
    # B is zero in the first step: what is dropped before it shows in the norm of its gradient.
    assert events_of(dropping, MetricEvent)[0].loss == pytest.approx(events_of(whole, MetricEvent)[0].loss, rel=1e-5)
    assert events_of(dropping, MetricEvent)[0].grad_norm != pytest.approx(
        events_of(whole, MetricEvent)[0].grad_norm, rel=1e-2
    )


def test_stagnant_run_stops_early_with_its_best(evaluated: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    evaluated["optimizer"] = {"learning_rate": 0.3}  # learns the training split by heart
    evaluated["schedule"]["epochs"] = 100
    evaluated["evaluation"] = {"fraction": 0.25, "every_steps": 1, "patience": 3}
    outcome = train_here(evaluated, tmp_path / "run", cache)
    evaluations = events_of(outcome, EvaluationEvent)
    losses = [event.eval_loss for event in evaluations]
    best = losses.index(min(losses))
    assert [event.step for event in evaluations if event.best][-1] == best
    done = outcome.events[-1]
    assert isinstance(done, DoneEvent)
    assert (done.completed, done.stopped_early, done.best_step) == (True, True, best)
    assert done.step == best + 3 == len(losses) - 1
    (kept,) = (event for event in events_of(outcome, CheckpointEvent) if event.step == best)
    assert kept.eval_loss == min(losses)
    assert kept.eval_loss == pytest.approx(plain_eval_loss(evaluated, outcome.folder / kept.path), rel=1e-5)


@pytest.mark.exhaustive
def test_effective_batch_is_equal_for_any_ranks(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    zero = {"engine": "deepspeed", "zero_stage": 3}
    ways: tuple[tuple[int, object, int, dict[str, Any]], ...] = (
        (1, 5, 5, {}),
        (1, "auto", 5, {}),
        (2, 1, 1, {}),
        (2, "auto", 3, zero),
    )

    def start(ranks: int, micro_batch: object, _: int, parallel: dict[str, Any]) -> Outcome:
        changed = recipe | {"batch": {"effective_batch_size": 5, "micro_batch_size": micro_batch}, "parallel": parallel}
        return run_trainer(changed, ranks, name=f"{ranks}-{micro_batch}")

    outcomes = at_once(*(functools.partial(start, *way) for way in ways))
    losses = []
    for (ranks, _, fits, _), outcome in zip(ways, outcomes, strict=True):
        assert outcome.exit_code == 0, outcome.output
        (started,) = events_of(outcome, StartedEvent)
        assert (started.effective_batch_size, started.micro_batch_size, started.world_size) == (5, fits, ranks)
        losses.append([event.loss for event in events_of(outcome, MetricEvent)])
    assert len(losses[0]) == 6  # 12 examples in steps of 5, 5 and 2
    for others in losses[1:]:
        assert others == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.exhaustive
def test_adapters_are_saved_by_the_clock(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    recipe["checkpointing"] = {"every_minutes": 1e-9}
    outcome = run_trainer(recipe)
    assert [event.step for event in events_of(outcome, CheckpointEvent)] == [1, 2, 3, 4, 5, 6]


def test_adapter_is_saved_at_the_end_of_epochs(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    outcome = train_here(recipe | {"checkpointing": {"every_epochs": 1}}, tmp_path / "run", cache)
    per_epoch = [metric.step for metric in events_of(outcome, MetricEvent) if metric.epoch == int(metric.epoch)]
    saved = events_of(outcome, CheckpointEvent)
    assert len(per_epoch) > 1
    assert [event.step for event in saved] == per_epoch
    assert [event.final for event in saved] == [False] * (len(per_epoch) - 1) + [True]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["llama with dropout", "gpt2 with dropout"])
def test_base_dropout_is_on_in_training(
    kind: str, recipe: dict[str, Any], dataset: Path, make_model: Callable[[str], Path], run_trainer: RunTrainer
) -> None:
    dataset.write_text(f"{json.dumps(ROWS[0])}\n" * 12)  # alike, so that it does not matter which are held out
    recipe |= {"model": str(make_model(kind)), "schedule": {"max_steps": 2}}
    runs = at_once(
        lambda: run_trainer(recipe | {"evaluation": {"fraction": 0}}, name="none"),
        lambda: run_trainer(recipe | {"evaluation": {"fraction": 0.25}}, name="some"),
    )
    for outcome in runs:
        assert outcome.exit_code == 0, outcome.output
    curves = [[metric.loss for metric in events_of(outcome, MetricEvent)] for outcome in runs]
    assert curves[0] == curves[1]
    (before, _after) = events_of(runs[1], EvaluationEvent)
    assert curves[0][0] != pytest.approx(before.eval_loss, rel=1e-3)
    assert runs[1].events[-1].eval_loss == pytest.approx(
        plain_eval_loss(recipe | {"evaluation": {"fraction": 0.25}}, runs[1].folder / "adapter"), rel=1e-5
    )


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"adapter": {"target_modules": ["wrong"]}}, FailureCode.TARGET_MODULES_UNMATCHED, "q_proj"),
        pytest.param({"dataset": "/nowhere.jsonl"}, FailureCode.DATASET_NOT_FOUND, "/nowhere.jsonl", marks=EXHAUSTIVE),
        pytest.param({"model": "/no/such/model"}, FailureCode.MODEL_NOT_FOUND, "/no/such/model", marks=EXHAUSTIVE),
        pytest.param(
            {"batch": {"micro_batch_size": 0}}, FailureCode.RECIPE_INVALID, "batch.micro_batch_size", marks=EXHAUSTIVE
        ),
        pytest.param({"adapter": {"alpha": 1e38}}, FailureCode.LOSS_NOT_FINITE, "learning_rate", marks=EXHAUSTIVE),
    ],
    ids=lambda value: value.value if isinstance(value, FailureCode) else "",
)
def test_unworkable_recipe_fails_in_words(
    change: dict[str, Any], reason: FailureCode, said: str, recipe: dict[str, Any], run_trainer: RunTrainer
) -> None:
    outcome = run_trainer(recipe | change)
    assert outcome.exit_code == 1
    assert outcome.failure.code == reason
    assert said in outcome.failure.message


def test_infinite_loss_ends_the_run_in_words(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        train_here(recipe | {"adapter": {"alpha": 1e38}}, tmp_path / "run", cache)
    assert caught.value.failure.code == FailureCode.LOSS_NOT_FINITE
    assert "learning_rate" in caught.value.failure.message
