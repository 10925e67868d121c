"""A run that goes on from a state is the run that never stopped, number for number."""

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.events import Checkpoint, Done, Evaluation, Metric, Started, parse_event
from contract.failure import InputError
from contract.out_of_memory import smaller_batch
from contract.recipe import Batch
from contract.run_dir import RunDir, newest_state, seal
from tests.trainer.conftest import Outcome, at_once, command
from tests.trainer.here import train_here

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
    told: list[tuple[Any, ...]] = []
    for event in outcome.events:
        if isinstance(event, Metric) and event.step > after:
            told.append((event.step, event.loss, event.grad_norm, event.learning_rate, event.epoch, event.progress))
        elif isinstance(event, Evaluation) and event.step > after:
            told.append((event.step, event.eval_loss))
        elif isinstance(event, Done):
            told.append((event.step, event.completed, event.train_loss, event.eval_loss))
    return told


@pytest.mark.parametrize(
    "change",
    [
        {},
        pytest.param({"precision": "fp16"}, marks=pytest.mark.exhaustive),
        pytest.param({"optimizer": {"type": "adamw_8bit"}}, marks=pytest.mark.exhaustive),
    ],
    ids=["fp32", "fp16", "8-bit AdamW"],
)
def test_a_run_that_was_stopped_in_the_middle_of_an_epoch_and_of_a_window_is_the_uninterrupted_one(
    dropping: dict[str, Any], change: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    """The steps of an epoch have 4, 4 and 1 micro-batches: the 15th is the second of step 5. By then random numbers
    were drawn for its dropout, which the next attempt draws again. Nothing was saved before that."""
    dropping |= change | {"checkpointing": {}}
    whole = train_here(dropping, tmp_path / "whole", cache)
    first = train_here(dropping, tmp_path / "first", cache, stop_in=15)
    done = first.events[-1]
    assert isinstance(done, Done)
    assert (done.step, done.completed) == (4, False)
    rest = train_here(dropping, tmp_path / "rest", cache, resume=left_by(first))
    assert len(numbers(rest, after=4)) == 8 + 3 + 1
    assert_same(rest, whole, after=4)


@pytest.mark.parametrize(
    "parallel",
    [
        {},
        pytest.param({"engine": "deepspeed", "zero_stage": 0}, marks=pytest.mark.exhaustive),
        pytest.param({"engine": "deepspeed", "zero_stage": 1}, marks=pytest.mark.exhaustive),
        pytest.param({"engine": "deepspeed"}, marks=pytest.mark.exhaustive),
        pytest.param({"engine": "deepspeed", "zero_stage": 3}, marks=pytest.mark.exhaustive),
        pytest.param({"engine": "fsdp"}, marks=pytest.mark.exhaustive),
    ],
    ids=["ddp", "zero-0", "zero-1", "zero-2", "zero-3", "fsdp"],
)
def test_two_ranks_that_go_on_give_the_numbers_and_the_adapter_of_an_uninterrupted_run(
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
    (started,) = (event for event in rest.events if isinstance(event, Started))
    assert_same(rest, whole, after=started.resumed_step)


def assert_same(ours: Outcome, whole: Outcome, after: int) -> None:
    """To the last bit."""
    assert numbers(ours, after) == numbers(whole, after)
    file = "adapter/adapter_model.safetensors"
    assert (ours.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def left_by(outcome: Outcome) -> Path:
    """The state to go on from."""
    state, damaged = newest_state([RunDir(outcome.folder)])
    assert state is not None
    assert damaged == []
    return state


@pytest.mark.exhaustive
def test_a_run_with_an_effective_batch_goes_on_with_another_number_of_ranks_and_in_another_engine(
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
        (started,) = (event for event in rest.events if isinstance(event, Started))
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
def test_a_run_goes_on_with_half_the_micro_batch_after_it_ran_out_of_memory(
    dropping: dict[str, Any], run_trainer: RunTrainer, ranks: int, batch: dict[str, Any], tmp_path: Path
) -> None:
    """Without dropout, which falls elsewhere in other passes."""
    dropping |= {"adapter": {"r": 4, "alpha": 8}, "batch": batch}
    whole, state = at_once(
        lambda: run_trainer(dropping, ranks, name="whole"),
        lambda: interrupt_after(tmp_path / "first", dropping, 4, ranks),
    )
    (before,) = (event for event in whole.events if isinstance(event, Started))
    smaller = smaller_batch(Batch.model_validate(batch), before)
    assert smaller is not None
    rest = run_trainer(dropping | {"batch": smaller.model_dump()}, ranks, name="rest", resume=state)
    assert rest.exit_code == 0, rest.output
    (started,) = (event for event in rest.events if isinstance(event, Started))
    assert (before.micro_batch_size, started.micro_batch_size) == (4 // ranks, 2 // ranks)
    assert (started.effective_batch_size, started.total_steps) == (before.effective_batch_size, before.total_steps)
    after = started.resumed_step
    assert tokens(rest, after) == tokens(whole, after)
    for ours, expected in zip(numbers(rest, after), numbers(whole, after), strict=True):
        assert ours == pytest.approx(expected, rel=1e-4)


def tokens(outcome: Outcome, after: int) -> list[tuple[int, int, int]]:
    metrics = [event for event in outcome.events if isinstance(event, Metric) and event.step > after]
    return [(event.step, event.tokens, event.supervised_tokens) for event in metrics]


def interrupt_after(folder: Path, recipe: dict[str, Any], step: int, ranks: int) -> Path:
    """Tells a run to stop once it has told of a step; the state that it leaves."""
    run = RunDir(folder)
    folder.mkdir()
    run.recipe.write_text(json.dumps(recipe))
    with subprocess.Popen(command(folder, ranks), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if f" metric step={step} " in line:
                process.send_signal(signal.SIGTERM)
    done = parse_event(run.events.read_bytes().splitlines()[-1])
    assert isinstance(done, Done)
    assert not done.completed
    state, damaged = newest_state([run])
    assert state == run.state(done.step)
    assert damaged == []
    return state


def change_position(state: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Returns it as it stood."""
    position = json.loads((state / "position.json").read_text())
    (state / "position.json").write_text(json.dumps(position | change(position)))
    seal(state)
    return dict(position)


def test_an_evaluation_that_a_stop_cut_short_is_made_up_for_and_the_best_adapter_saved(
    dropping: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    dropping |= {"evaluation": {"fraction": 0.25, "every_steps": 1}, "checkpointing": {}}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    position = change_position(state, lambda stood: {"eval_step": stood["step"] - 1, "best_loss": 1e9})
    rest = train_here(dropping, tmp_path / "rest", cache, resume=state)
    evaluation = next(event for event in rest.events if isinstance(event, Evaluation))
    assert (evaluation.step, evaluation.best) == (position["step"], True)
    saved = next(event for event in rest.events if isinstance(event, Checkpoint))
    assert (saved.step, saved.eval_loss) == (position["step"], evaluation.eval_loss)


def test_a_run_that_was_stopped_in_its_last_evaluation_makes_it_and_ends(
    dropping: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    change_position(state, lambda _: {"step": 12, "eval_step": 9})
    rest = train_here(dropping, tmp_path / "rest", cache, resume=state)
    (evaluation,) = (event for event in rest.events if isinstance(event, Evaluation))
    (saved,) = (event for event in rest.events if isinstance(event, Checkpoint))
    done = rest.events[-1]
    assert isinstance(done, Done)
    assert (evaluation.step, saved.step, saved.final, done.step, done.completed) == (12, 12, True, 12, True)
    assert saved.eval_loss == done.eval_loss == evaluation.eval_loss


def test_a_run_that_is_done_keeps_its_adapters_and_no_state(
    dropping: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    outcome = train_here(dropping, tmp_path / "run", cache)
    run = RunDir(outcome.folder)
    best = {event.step for event in outcome.events if isinstance(event, Evaluation) and event.best and event.step}
    saved = sorted({4, 8} | (best - {12}))
    assert [path.name for path in sorted(run.checkpoints.iterdir())] == [f"step-{step:06d}" for step in saved]
    assert list(run.states.iterdir()) == []


def test_states_are_saved_by_the_clock_and_only_the_newest_are_kept(
    dropping: dict[str, Any], tmp_path: Path, cache: Path
) -> None:
    dropping["checkpointing"] = {"training_checkpoint_minutes": 1e-9, "keep_training_checkpoints": 3}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=20))
    assert sorted(path.name for path in state.parent.iterdir()) == [f"step-{step:06d}" for step in (4, 5, 6)]


def test_a_state_that_is_damaged_is_not_loaded(
    dropping: dict[str, Any], run_trainer: RunTrainer, tmp_path: Path, cache: Path
) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    moments = bytearray((state / "optimizer.safetensors").read_bytes())
    moments[-1] ^= 1
    (state / "optimizer.safetensors").write_bytes(moments)
    outcome = run_trainer(dropping, name="rest", resume=state)
    assert outcome.exit_code == 1
    assert f"{state.name}/optimizer.safetensors is damaged" in outcome.failure.message


def test_a_state_of_other_steps_of_another_adapter_or_of_other_data_is_refused(
    dropping: dict[str, Any], dataset: Path, tmp_path: Path, cache: Path
) -> None:
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=15))
    other = tmp_path / "other.jsonl"
    other.write_text(dataset.read_text().replace("Hello there!", "Good day."))
    changes = {
        "steps of 4, and now there are 9 in steps of 1": {"batch": {"micro_batch_size": 1}},
        "an adapter of another shape": {"adapter": {"r": 8}},
        "other examples": {"dataset": str(other)},
        "or in another order": {"seed": 7},
        "by another schedule": {"schedule": {"epochs": 4, "type": "linear"}},
    }
    for number, (said, change) in enumerate(changes.items()):
        with pytest.raises(InputError, match=said):
            train_here(dropping | change, tmp_path / f"other-{number}", cache, resume=state)


@pytest.mark.exhaustive
def test_a_state_may_go_on_in_smaller_micro_batches_and_with_its_data_elsewhere(
    dropping: dict[str, Any], dataset: Path, tmp_path: Path, cache: Path
) -> None:
    dropping["batch"] = {"micro_batch_size": 2, "effective_batch_size": 4}
    state = left_by(train_here(dropping, tmp_path / "first", cache, stop_in=7))
    moved = dataset.rename(tmp_path / "moved.jsonl")
    change = {"batch": {"micro_batch_size": 1, "effective_batch_size": 4}, "dataset": str(moved)}
    rest = train_here(dropping | change, tmp_path / "rest", cache, resume=state)
    assert rest.events[-1].step == 12
