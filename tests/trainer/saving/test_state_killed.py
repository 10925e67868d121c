"""The trainer is killed in the middle of saving a state: a real process, which is held there."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from contract.events import MetricEvent
from contract.run_dir import RunDir, latest_state, partial_path
from tests.support.waiting import until
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome, command

pytestmark = pytest.mark.slow


@pytest.mark.exhaustive
def test_state_is_kept_when_its_writer_is_killed(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    recipe |= {"adapter": {"r": 64}, "schedule": {"epochs": 4}}
    whole = train_here(recipe, tmp_path / "whole", cache)
    run = RunDir(tmp_path / "killed")
    run.path.mkdir()
    run.recipe.write_text(json.dumps(recipe | {"checkpointing": {"every_steps": 1}}))
    with subprocess.Popen(command(run.path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as trainer:
        try:
            step = hold_while_it_saves(trainer, run)
        finally:
            trainer.kill()

    assert partial_path(run.state(step)).is_dir()
    state, damaged = latest_state([run])
    assert (state, damaged) == (run.state(step - 1), [])
    assert losses(Outcome(run.path, trainer.returncode, "")) == losses(whole)[:step]
    rest = train_here(recipe, tmp_path / "rest", cache, resume=state)
    assert losses(rest) == losses(whole)[step - 1 :]


def hold_while_it_saves(trainer: subprocess.Popen[bytes], run: RunDir) -> int:
    """Stops it where a state is half written, and gives that one's step. It may be whole before the stop is heeded:
    then the next one will do."""
    until(run.states.exists, seconds=60)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert trainer.poll() is None
        if half_written(run) is None:
            continue
        trainer.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, trainer.pid, os.WSTOPPED)
        if (step := half_written(run)) is not None:
            return step
        trainer.send_signal(signal.SIGCONT)
    raise AssertionError("no state was seen half written")


def half_written(run: RunDir) -> int | None:
    """Of the first there is none before it to go on from."""
    found = re.findall(r"\.step-(\d+)\.partial", " ".join(path.name for path in run.states.glob(".*.partial")))
    return next((int(step) for step in found if int(step) > 1), None)


def losses(outcome: Outcome) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in outcome.events if isinstance(event, MetricEvent)]
