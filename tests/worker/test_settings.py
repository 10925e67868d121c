from datetime import timedelta
from pathlib import Path

import pytest

from runtime.settings import read_settings
from worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"DATABASE_URL": "postgresql://", "BROKER_URL": "redis://", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(f"FINETUNED_{name}", value)


@pytest.mark.parametrize(("given", "seconds"), [("10", 10), ("0.5", 0.5), ("PT1M", 60), ("00:01:30", 90)])
def test_a_time_is_seconds_or_a_duration(monkeypatch: pytest.MonkeyPatch, given: str, seconds: float) -> None:
    monkeypatch.setenv("FINETUNED_LEASE", given)
    assert read_settings(WorkerSettings).lease == timedelta(seconds=seconds)


def test_a_name_that_can_be_no_queues_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINETUNED_WORKER", "box 1")
    with pytest.raises(SystemExit, match="FINETUNED_WORKER: String should match pattern"):
        read_settings(WorkerSettings)
