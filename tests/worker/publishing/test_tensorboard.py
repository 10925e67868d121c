"""TensorBoard itself reads what a job's artifact has."""

import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from storage.backends import FolderStorage
from store import artifacts
from store.session import Sessions
from tests.support.fake_trainer import loss
from tests.worker.publishing.ended_jobs import end, published, run_job
from worker.publishing.publisher import publish_all
from worker.settings import WorkerSettings

TRACKING: dict[str, Any] = {"tracking": {"tensorboard": True}}


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, worker="worker"
    )


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every scalar, by tag."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_every_step(sessions: Sessions, settings: WorkerSettings, tmp_path: Path) -> None:
    job_id = run_job(sessions, settings, **TRACKING)
    end(sessions, job_id)
    publish_all(sessions, settings, FolderStorage(settings.home))
    artifact = published(sessions, job_id)["events.out.tfevents"]
    assert (artifact.kind, artifacts.is_archive(artifact)) == ("tensorboard", False)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / artifact.name).write_bytes((settings.runs / artifact.path).read_bytes())
    found = read(folder)
    assert [step for step, _ in found["train/loss"]] == [1, 2, 3]
    assert all(math.isclose(value, loss(step), rel_tol=1e-6) for step, value in found["train/loss"])
    assert found["eval/loss"] == [(2, 1.25), (3, 1.5)]
    assert {"train/learning_rate", "train/tokens_per_second", "train/memory_bytes"} <= set(found)
    assert "train/loss_scale" not in found


def test_job_without_a_step_has_no_event_file(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings, steps=0, **TRACKING)
    end(sessions, job_id)
    publish_all(sessions, settings, FolderStorage(settings.home))
    assert "events.out.tfevents" not in published(sessions, job_id)
