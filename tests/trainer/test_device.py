"""A trainer that was given GPUs which torch cannot use."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from tests.trainer.trainer_process import Outcome, command
from trainer.device import this_device


@pytest.mark.parametrize("given", ["", "-1", "NoDevFiles"])
def test_trainer_without_gpus_takes_the_cpu(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert this_device().type == "cpu"


@pytest.mark.parametrize("given", ["0", "1,0", "MIG-1"])
def test_unusable_gpus_are_never_replaced_by_the_cpu(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with pytest.raises(InputError, match=f"given the GPUs {given}: "):
        this_device()


def test_trainer_fails_at_once_with_the_reason_of_torch(tmp_path: Path, recipe: dict[str, Any]) -> None:
    """No machine has this GPU."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(recipe))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "GPU-00000000-1111-2222-3333-444444444444"}
    done = subprocess.run(command(run), env=environment, capture_output=True, text=True, timeout=120)
    outcome = Outcome(run, done.returncode, done.stdout + done.stderr)
    assert (outcome.exit_code, outcome.failure.code) == (1, FailureCode.DEVICES_UNAVAILABLE)
    assert outcome.failure.code.retryable
    assert any(words in outcome.failure.message for words in ("not compiled with CUDA", "NVIDIA", "No CUDA GPUs"))
    assert "started" not in {event.type for event in outcome.events}
