import json
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from contract.events import Checkpoint
from contract.machine import Machine
from contract.recipe import Recipe
from contract.run_dir import RunDir
from contract.status import JobStatus
from store import artifacts, jobs
from store.models import Job
from store.session import Sessions
from tests.files import write_dataset, write_model
from tests.service import FAKE_TRAINER
from worker import attempt
from worker.settings import WorkerSettings

LEASE = timedelta(minutes=1)
CPU = Machine(gpus=[], cores=2, cpu_bf16=False)


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    write_model(tmp_path / "models" / "tiny")
    write_dataset(tmp_path / "datasets" / "rows.jsonl")
    return WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        trainer=[sys.executable, str(FAKE_TRAINER)],
    )


def run(sessions: Sessions, settings: WorkerSettings, **fields: Any) -> Job:
    """The job, after its first attempt."""
    recipe = Recipe.model_validate({"model": "tiny", "dataset": "rows.jsonl", **fields})
    with sessions.begin() as session:
        jobs.create(session, recipe)
        job = jobs.claim(session, "worker", LEASE)
    assert job is not None
    attempt.run(sessions, settings, CPU, attempt.Attempt(job.id, job.attempt, job.recipe), lambda: False)
    with sessions.begin() as session:
        return jobs.get(session, job.id)


def test_the_command_of_a_job_is_kept_and_has_absolute_paths_alone(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job = run(sessions, settings)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    run_dir = str(settings.runs / job.id / "attempt-1")
    assert shlex.split(job.command or "") == [
        sys.executable, str(FAKE_TRAINER), run_dir, "--cache", str(settings.home / "cache")
    ]  # fmt: skip


def test_a_recipe_that_this_machine_cannot_run_fails_before_anything_is_started(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job = run(sessions, settings, precision="bf16")
    assert job.failure is not None
    assert (job.failure["reason"], job.failure["param"]) == ("precision_unavailable", "precision")
    assert job.command is None


def test_a_job_starts_from_the_adapter_that_another_has_saved(sessions: Sessions, settings: WorkerSettings) -> None:
    earlier = run(sessions, settings, name="steps=4 every=2")
    for start_from, folder in ((earlier.id, "adapter"), (f"{earlier.id}/checkpoint-2", "checkpoints/step-000002")):
        job = run(sessions, settings, adapter={"start_from": start_from})
        assert job.status is JobStatus.SUCCEEDED
        recipe = json.loads(RunDir(settings.runs / job.id / "attempt-1").recipe.read_text())
        assert recipe["adapter"]["start_from"] == str(settings.runs / earlier.id / "attempt-1" / folder)
        assert job.recipe["adapter"]["start_from"] == start_from


def test_a_job_whose_earlier_adapter_has_gone_fails_with_that_reason(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    with sessions.begin() as session:
        earlier = jobs.create(session, Recipe.model_validate({"model": "tiny", "dataset": "rows.jsonl"})).id
        jobs.claim(session, "worker", LEASE)
        artifacts.add_checkpoint(session, earlier, 1, Checkpoint(time=1, step=1, path="adapter", bytes=1, final=True))
    failure = run(sessions, settings, adapter={"start_from": earlier}).failure
    assert failure is not None
    assert (failure["reason"], failure["param"]) == ("recipe_invalid", "adapter.start_from")
    assert "no longer on the server" in failure["message"]
