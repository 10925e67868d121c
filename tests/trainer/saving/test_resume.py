"""A run that goes on from a state is the run that never stopped, number for number."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.events import CheckpointEvent, DoneEvent, EvaluationEvent, MetricEvent, StartedEvent, parse_event
from contract.failure import InputError
from contract.out_of_memory import smaller_batch
from contract.recipe import Batch
from contract.run_dir import RunDir, latest_state, write_checksums
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, at_once, command

RunTrainer = Callable[..., Outcome]


@pytest.fixture
def dropping(recipe: dict[str, Any]) -> dict[str, Any]:
    """Ten steps with dropout, a falling learning rate and evaluations; a state in the middle of an epoch."""
    return recipe | {
        "adapter": {"r": 4, "alpha": 8, "dropout": 0.3},
        "batch": {"micro_batch_size": 1, "effective_batch_size": 4},
        "schedule": {"epochs": 4, "type": "cosine"},
        "evaluation": {"fraction": 0.25, "every_steps": 3},
        "checkpointing": {"every_steps": 4},
    }


def numbers(outcome: Outcome, after: int) -> list[tuple[Any, ...]]:
    reported: list[tuple[Any, ...]] = []
    for event in outcome.events:
        if isinstance(event, MetricEvent) and event.step > after:
            reported.append((event.step, event.loss, event.grad_norm, event.learning_rate, event.epoch, event.progress))
        elif isinstance(event, EvaluationEvent) and event.step > after:
            reported.append((event.step, event.eval_loss))
        elif isinstance(event, DoneEvent):
            reported.append((event.step, event.completed, event.train_loss, event.eval_loss))
    return reported


@pytest.mark.parametrize(
    "change",
    [
        {},
        pytest.param({"precision": "fp16"}, marks=pytest.mark.exhaustive),
        pytest.param({"optimizer": {"type": "adamw_8bit"}}, marks=pytest.mark.exhaustive),
    ],
    ids=["fp32", "fp16", "8-bit AdamW"],
)
def test_interrupted_run_equals_the_uninterrupted_one(
    dropping: dict[str, Any], change: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    """The steps of an epoch have 4, 4 and 1 micro-batches: the 15th is the second of step 5. By then random numbers
    were drawn for its dropout, which the next attempt draws again. Nothing was saved before that."""
    dropping |= change | {"checkpointing": {}}
    whole = train_here(dropping, tmp_path / "whole", cache)
    first = train_here(dropping, tmp_path / "first", cache, stop_in=15)
    done = first.events[-1]
    assert isinstance(done, DoneEvent)
    assert (done.step, done.completed) == (4, False)
    rest = train_here(dropping, tmp_path / "rest", cache, resume=left_by(first))
    assert len(numbers(rest, after=4)) == 8 + 3 + 1
    assert_same(rest, whole, after=4)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "parallel",
    [
        {},
        {"engine": "deepspeed", "zero_stage": 0},
        {"engine": "deepspeed", "zero_stage": 1},
        {"engine": "deepspeed"},
        {"engine": "deepspeed", "zero_stage": 3},
        {"engine": "fsdp"},
    ],
    ids=["ddp", "zero-0", "zero-1", "zero-2", "zero-3", "fsdp"],
)
@pytest.mark.slow
def test_two_resumed_ranks_equal_uninterrupted_ones(
    dropping: dict[str, Any], parallel: dict[str, Any], run_trainer: RunTrainer, tmp_path: Path
) -> None:
    """A signal has stopped them, somewhere in an epoch, and most often in a window, which is given up."""
    dropping |= {"parallel": parallel}
    # The state is forgotten once a run is done: the first part is a run of its own, of as many steps.
    whole, state = at_once(
        lambda: run_trainer(dropping, ranks=2, name="whole"),
        lambda: interrupt_after(tmp_path / "first", dropping, 4, ranks=2),
    )
    assert whole.exit_code == 0, whole.output
    rest = run_trainer(dropping, ranks=2, name="rest", resume=state)
    assert rest.exit_code == 0, rest.output
    (started,) = (event for event in rest.events if isinstance(event, StartedEvent))
    assert_same(rest, whole, after=started.resumed_step)


def assert_same(ours: Outcome, whole: Outcome, after: int) -> None:
    """To the last bit."""
    assert numbers(ours, after) == numbers(whole, after)
    file = "adapter/adapter_model.safetensors"
    assert (ours.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def left_by(outcome: Outcome) -> Path:
    """The state to go on from."""
    state, damaged = latest_state([RunDir(outcome.folder)])
    assert state is not None
    assert damaged == []
    return state


@pytest.mark.exhaustive
def test_run_resumes_on_other_ranks_and_engines(
    dropping: dict[str, Any], run_trainer: RunTrainer, tmp_path: Path, cache: Path
) -> None:
    """Fewer, and more: without dropout, whose random numbers are each rank's own."""
    dropping["adapter"] = {"r": 4, "alpha": 8}
    zero = {"engine": "deepspeed", "zero_stage": 3}, {"engine": "deepspeed"}
    whole = train_here(dropping, tmp_path / "whole", cache)
    alone = left_by(train_here(dropping, tmp_path / "alone", cache, stop_in=15))
    together, more = at_once(
        lambda: interrupt_after(tmp_path / "first", dropping | {"parallel": zero[0]}, 4, ranks=2),
        lambda: run_trainer(dropping | {"parallel": zero[1]}, ranks=2, name="more", resume=alone),
    )
    assert more.exit_code == 0, more.output
    for rest in (train_here(dropping, tmp_path / "fewer", cache, resume=together), more):
        (started,) = (event for event in rest.events if isinstance(event, StartedEvent))
        after = started.resumed_step
        assert after >= 4
        for ours, expected in zip(numbers(rest, after), numbers(whole, after), strict=True):
            assert ours == pytest.approx(expected, rel=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("ranks", "batch"),
    [(1, {"micro_batch_size": "auto", "effective_batch_size": 4}), (2, {"micro_batch_size": 2})],
    ids=["automatic", "2 ranks"],
)
def test_run_resumes_with_half_the_micro_batch(
    dropping: dict[str, Any], run_trainer: RunTrainer, ranks: int, batch: dict[str, Any], tmp_path: Path
) -> None:
    """Without dropout, which falls elsewhere in other passes."""
    dropping |= {"adapter": {"r": 4, "alpha": 8}, "batch": batch}
    whole, state = at_once(
        lambda: run_trainer(dropping, ranks, name="whole"),
        lambda: interrupt_after(tmp_path / "first", dropping, 4, ranks),
    )
    (before,) = (event for event in whole.events if isinstance(event, StartedEvent))
    smaller = smaller_batch(Batch.model_validate(batch), before)
    assert smaller is not None
    rest = run_trainer(dropping | {"batch": smaller.model_dump()}, ranks, name="rest", resume=state)
    assert rest.exit_code == 0, rest.output
    (started,) = (event for event in rest.events if isinstance(event, StartedEvent))
    assert (before.micro_batch_size, started.micro_batch_size) == (4 // ranks, 2 // ranks)
    assert (started.effective_batch_size, started.total_steps) == (before.effective_batch_size, before.total_steps)
    after = started.resumed_step
    assert tokens(rest, after) == tokens(whole, after)
    for ours, expected in zip(numbers(rest, after), numbers(whole, after), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)


def tokens(outcome: Outcome, after: int) -> list[tuple[int, int, int]]:
    metrics = [event for event in outcome.events if isinstance(event, MetricEvent) and event.step > after]
    return [(event.step, event.tokens, event.supervised_tokens) for event in metrics]


def interrupt_after(folder: Path, recipe: dict[str, Any], step: int, ranks: int) -> Path:
    """Stops a run after a step; the state that it leaves."""
    run = RunDir(folder)
    folder.mkdir()
    run.recipe.write_text(json.dumps(recipe))
    with subprocess.Popen(command(folder, ranks), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if f" metric step={step} " in line:
                process.send_signal(signal.SIGTERM)
    done = parse_event(run.events.read_bytes().splitlines()[-1])
    assert isinstance(done, DoneEvent)
    assert not done.completed
    state, damaged = latest_state([run])
    assert state == run.state(done.step)
    assert damaged == []
    return state


def change_position(state: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Returns it as it stood."""
    position = json.loads((state / "position.json").read_text())
    (state / "position.json").write_text(json.dumps(position | change(position)))
    write_checksums(state)
    return dict(position)


def test_interrupted_evaluation_is_repeated(dropping: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    dropping |= {"evaluation": {"fraction": 0.25, "every_steps": 1}, "checkpointing": {}}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    position = change_position(state, lambda stood: {"eval_step": stood["step"] - 1, "best_loss": 1e9})
    rest = train_here(dropping, tmp_path / "rest", cache, resume=state)
    evaluation = next(event for event in rest.events if isinstance(event, EvaluationEvent))
    assert (evaluation.step, evaluation.best) == (position["step"], True)
    saved = next(event for event in rest.events if isinstance(event, CheckpointEvent))
    assert (saved.step, saved.eval_loss) == (position["step"], evaluation.eval_loss)


def test_run_stopped_in_its_last_evaluation_ends(dropping: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    change_position(state, lambda _: {"step": 12, "eval_step": 9})
    rest = train_here(dropping, tmp_path / "rest", cache, resume=state)
    (evaluation,) = (event for event in rest.events if isinstance(event, EvaluationEvent))
    (saved,) = (event for event in rest.events if isinstance(event, CheckpointEvent))
    done = rest.events[-1]
    assert isinstance(done, DoneEvent)
    assert (evaluation.step, saved.step, saved.final, done.step, done.completed) == (12, 12, True, 12, True)
    assert saved.eval_loss == done.eval_loss == evaluation.eval_loss


def test_finished_run_keeps_adapters_and_no_state(dropping: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    outcome = train_here(dropping, tmp_path / "run", cache)
    run = RunDir(outcome.folder)
    best = {event.step for event in outcome.events if isinstance(event, EvaluationEvent) and event.best and event.step}
    saved = sorted({4, 8} | (best - {12}))
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [f"step-{step:06d}" for step in saved]
    assert list(run.states.iterdir()) == []


def test_states_are_saved_by_time_and_pruned(dropping: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    dropping["checkpointing"] = {"training_checkpoint_minutes": 1e-9, "keep_training_checkpoints": 3}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=20))
    assert sorted(path.name for path in state.parent.iterdir()) == [f"step-{step:06d}" for step in (4, 5, 6)]


def test_state_that_is_damaged_is_not_loaded(dropping: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    moments = bytearray((state / "optimizer.safetensors").read_bytes())
    moments[-1] ^= 1
    (state / "optimizer.safetensors").write_bytes(moments)
    with pytest.raises(RuntimeError, match=rf"{state.name}/optimizer\.safetensors is damaged"):
        train_here(dropping, tmp_path / "rest", cache, resume=state)


def test_state_of_another_run_is_refused(dropping: dict[str, Any], dataset: Path, tmp_path: Path, cache: Path) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    other = tmp_path / "other.jsonl"
    other.write_text(dataset.read_text().replace("Hello there!", "Good day."))
    changes: dict[str, dict[str, Any]] = {
        "steps of 4, and now there are 9 in steps of 1": {"batch": {"micro_batch_size": 1}},
        "an adapter of another shape": {"adapter": {"r": 8}},
        "other examples": {"dataset": str(other)},
        "or in another order": {"seed": 7},
        "by another method or schedule": {"schedule": {"epochs": 4, "type": "linear"}},
    }
    for number, (said, change) in enumerate(changes.items()):
        with pytest.raises(InputError, match=said):
            train_here(dropping | change, tmp_path / f"other-{number}", cache, resume=state)


@pytest.mark.exhaustive
def test_state_resumes_with_moved_data(dropping: dict[str, Any], dataset: Path, tmp_path: Path, cache: Path) -> None:
    dropping["batch"] = {"micro_batch_size": 2, "effective_batch_size": 4}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=7))
    moved = dataset.rename(tmp_path / "moved.jsonl")
    change = {"batch": {"micro_batch_size": 1, "effective_batch_size": 4}, "dataset": str(moved)}
    rest = train_here(dropping | change, tmp_path / "rest", cache, resume=state)
    (done,) = (event for event in rest.events if isinstance(event, DoneEvent))
    assert done.step == 12
