from pathlib import Path
from typing import Any

import pytest

from contract.events import CheckpointEvent, DoneEvent, MetricEvent
from contract.run_dir import RunDir
from tests.trainer.in_process_trainer import train_here
from tests.trainer.trainer_process import Outcome
from trainer.failures import failure_from


def test_superseded_run_saves_nothing_more(recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.superseded.touch()
    with pytest.raises(RuntimeError) as ended:
        train_here(recipe | {"checkpointing": {"every_steps": 1}}, run.path, cache)
    failure = failure_from(ended.value)
    assert "a later attempt continues" in failure.message.lower()
    outcome = Outcome(run.path, 1, "")
    assert any(isinstance(event, MetricEvent) for event in outcome.events)
    assert not any(isinstance(event, CheckpointEvent | DoneEvent) for event in outcome.events)
    assert not any(folder.exists() for folder in (run.adapter, run.checkpoints, run.states))
