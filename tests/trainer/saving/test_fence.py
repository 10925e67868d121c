import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.events import CheckpointEvent, DoneEvent, MetricEvent
from contract.run_dir import RunDir
from tests.trainer.trainer_process import Outcome, command

pytestmark = pytest.mark.slow


def test_superseded_run_saves_nothing_more(recipe: dict[str, Any], tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.recipe.write_text(json.dumps(recipe | {"checkpointing": {"every_steps": 1}}))
    run.superseded.touch()
    ended = subprocess.run(command(run.path), capture_output=True, text=True, timeout=120)
    outcome = Outcome(run.path, ended.returncode, ended.stdout + ended.stderr)
    assert outcome.exit_code == 1, outcome.output
    assert "a later attempt continues" in outcome.failure.message.lower()
    assert any(isinstance(event, MetricEvent) for event in outcome.events)
    assert not any(isinstance(event, CheckpointEvent | DoneEvent) for event in outcome.events)
    assert not any(folder.exists() for folder in (run.adapter, run.checkpoints, run.states))
