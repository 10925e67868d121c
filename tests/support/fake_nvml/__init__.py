"""GPUs that are not there: for this process by stand_in, for another one by PYTHONPATH=FOLDER and FAKE_NVML=FILE."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_nvml import pynvml

FOLDER = Path(__file__).parent

Have = Callable[..., None]
"""Called with all GPUs as pynvml.py has them, whenever they change."""


def write(file: Path, *gpus: dict[str, Any], driver: str = "580.65.06") -> None:
    """At once: a worker may be reading it."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"gpus": gpus, "driver": driver}))
    new.replace(file)


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Have:
    file = folder / "gpus.json"
    monkeypatch.setenv("FAKE_NVML", str(file))
    monkeypatch.setattr("worker.machine.inventory.pynvml", pynvml)
    monkeypatch.setattr("worker.machine.devices.pynvml", pynvml)
    monkeypatch.setattr("worker.machine.cuda.pynvml", pynvml)
    monkeypatch.setattr("worker.machine.inventory._initialised", False)
    return partial(write, file)
