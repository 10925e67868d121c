"""The trainer as a process, on a tiny model."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from contract.events import Checkpoint, Done, Evaluation, Metric, Phase, Started, parse_event
from contract.failure import FailureReason
from contract.recipe import Recipe
from tests.trainer.conftest import Outcome, command
from trainer.data import load_data

RunTrainer = Callable[..., Outcome]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def events_of(outcome: Outcome, kind: type) -> list[Any]:
    return [event for event in outcome.events if isinstance(event, kind)]


@pytest.fixture
def evaluated(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"evaluation": {"share": 0.25}, "checkpointing": {"every_steps": 2}}


def test_a_run_tells_its_story_and_its_adapter_reloads_with_the_loss_it_reported(
    evaluated: dict[str, Any], model: Path, run_trainer: RunTrainer
) -> None:
    outcome = run_trainer(evaluated)
    assert outcome.exit_code == 0, outcome.output
    assert {event.name for event in events_of(outcome, Phase)} == {"imports", "data", "model", "first_step"}
    (started,) = events_of(outcome, Started)
    assert (started.train_examples, started.eval_examples, started.total_steps) == (9, 3, 6)
    assert (started.precision, started.world_size) == ("fp32", 1)
    assert [event.step for event in events_of(outcome, Evaluation)] == [0, 3, 6]
    saved = [(event.step, event.path, event.final) for event in events_of(outcome, Checkpoint)]
    assert saved == [
        (2, "checkpoints/step-000002", False),
        (4, "checkpoints/step-000004", False),
        (6, "adapter", True),
    ]
    metrics = events_of(outcome, Metric)
    assert [metric.step for metric in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1].loss < metrics[0].loss
    assert (metrics[-1].progress, metrics[-1].epoch, metrics[-1].eta_seconds) == (1.0, 2.0, 0.0)
    done = outcome.events[-1]
    assert isinstance(done, Done)
    assert done.completed
    assert done.eval_loss == pytest.approx(plain_eval_loss(evaluated, outcome.folder / "adapter"), rel=1e-5)


def plain_eval_loss(recipe: dict[str, Any], adapter: Path) -> float:
    """By PEFT and transformers alone, one example at a time."""
    base = AutoModelForCausalLM.from_pretrained(recipe["model"], dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, adapter).eval()
    total = tokens = 0.0
    for document in load_data(Recipe.model_validate(recipe)).evaluation:
        ids = torch.tensor([document.input_ids])
        labels = torch.where(torch.tensor([document.supervised]), ids, -100)
        total += adapted(input_ids=ids, labels=labels).loss.item() * document.targets
        tokens += document.targets
    return total / tokens


def test_one_batch_two_accumulated_and_two_ranks_train_alike(recipe: dict[str, Any], run_trainer: RunTrainer) -> None:
    """Twelve examples in windows of eight: an epoch's last window is partial. AdamW would hide a wrong scale of the
    gradients from the losses, but not from the norms."""
    runs = {
        "whole": run_trainer(recipe | {"batch": {"micro_batch": 8}}, name="whole"),
        "accumulated": run_trainer(recipe | {"batch": {"micro_batch": 1, "accumulation": 8}}, name="accumulated"),
        "two ranks": run_trainer(recipe | {"batch": {"micro_batch": 2, "accumulation": 2}}, ranks=2, name="ranks"),
    }
    for outcome in runs.values():
        assert outcome.exit_code == 0, outcome.output
    curves = {
        name: [(m.loss, m.grad_norm, m.tokens, m.supervised_tokens) for m in events_of(outcome, Metric)]
        for name, outcome in runs.items()
    }
    assert len(curves["whole"]) == 4
    for name in ("accumulated", "two ranks"):
        for ours, expected in zip(curves[name], curves["whole"], strict=True):
            assert ours == pytest.approx(expected, rel=2e-4), name
    assert events_of(runs["two ranks"], Started)[0].world_size == 2


def test_sigterm_ends_the_run_with_a_checkpoint_that_holds_what_was_learned(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    recipe["schedule"]["epochs"] = 1000
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "events.jsonl", '"type":"metric"')
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    events = [parse_event(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    saved, done = events[-2:]
    assert isinstance(saved, Checkpoint)
    assert isinstance(done, Done)
    assert not saved.final
    assert not done.completed
    assert saved.step == done.step > 0
    assert (tmp_path / saved.path / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "adapter").exists()


def test_sigterm_before_the_first_step_leaves_nothing_but_the_word(recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(tmp_path / "events.jsonl", "")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    done = parse_event((tmp_path / "events.jsonl").read_bytes().splitlines()[-1])
    assert isinstance(done, Done)
    assert (done.step, done.completed, done.train_loss) == (0, False, None)
    assert not (tmp_path / "checkpoints").exists()


def wait_for(path: Path, text: str) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("change", "reason", "said"),
    [
        ({"adapter": {"target_modules": ["wrong"]}}, FailureReason.TARGET_MODULES_UNMATCHED, "q_proj"),
        ({"dataset": "/nowhere.jsonl"}, FailureReason.DATASET_NOT_FOUND, "/nowhere.jsonl"),
        ({"model": "/no/such/model"}, FailureReason.MODEL_NOT_FOUND, "/no/such/model"),
        ({"batch": {"micro_batch": 0}}, FailureReason.RECIPE_INVALID, "batch.micro_batch"),
        ({"adapter": {"alpha": 1e38}}, FailureReason.LOSS_NOT_FINITE, "learning_rate"),
    ],
    ids=lambda value: value.value if isinstance(value, FailureReason) else "",
)
def test_a_recipe_that_cannot_work_fails_in_words_for_its_owner(
    change: dict[str, Any], reason: FailureReason, said: str, recipe: dict[str, Any], run_trainer: RunTrainer
) -> None:
    outcome = run_trainer(recipe | change)
    assert outcome.exit_code == 1
    assert outcome.failure.reason == reason
    assert said in outcome.failure.message
