"""An attempt that nothing disturbs: what it is given, what it starts, and what it leaves."""

import json
import os
import shlex
import sys
from pathlib import Path

import pytest

from api.workers import worker_out
from contract.events import CheckpointEvent
from contract.machine import Gpu, Machine
from contract.run_dir import RunDir
from contract.status import JobStatus
from store import artifacts, datasets
from store.models import Job
from store.scheduling import leases, scheduler, workers
from store.session import Sessions
from tests.support import fake_nvml
from tests.support.artifacts import publish_rows
from tests.support.jobs import create_job, events_of_type
from tests.support.service import FAKE_TRAINER
from tests.worker.attempt.attempts import CPU, get_ended, place, run, run_dir, run_next
from worker.attempt import lifecycle
from worker.attempt.context import Attempt
from worker.settings import WorkerSettings


def test_job_command_has_absolute_paths(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 1)
    run_dir = str(settings.runs / job.id / "attempt-1")
    assert shlex.split(job.command or "") == [
        sys.executable, "-P", str(FAKE_TRAINER), run_dir, "--cache", str(settings.home / "cache")
    ]  # fmt: skip


def test_impossible_recipe_fails_before_the_start(sessions: Sessions, settings: WorkerSettings) -> None:
    create_job(sessions, precision="bf16")
    part = place(sessions, Machine(gpus=[], cores=1, cpu_bf16=True))
    lifecycle.run(Attempt(sessions, settings, CPU, part, lambda: False))
    job = get_ended(sessions, part.job_id)
    assert job.failure is not None
    assert (job.failure["code"], job.failure["param"]) == ("precision_unavailable", "precision")
    assert job.command is None


def test_job_starts_from_a_saved_adapter(sessions: Sessions, settings: WorkerSettings) -> None:
    earlier = run(sessions, settings, name="steps=4 every=2")
    for start_from, folder in ((earlier.id, "adapter"), (f"{earlier.id}/checkpoint-2", "checkpoints/step-000002")):
        job = run(sessions, settings, adapter={"start_from": start_from})
        assert job.status is JobStatus.SUCCEEDED
        recipe = json.loads(run_dir(settings, job).recipe.read_text())
        assert recipe["adapter"]["start_from"] == str(settings.runs / earlier.id / "attempt-1" / folder)
        assert job.recipe["adapter"]["start_from"] == start_from


def test_job_without_its_earlier_adapter_fails(sessions: Sessions, settings: WorkerSettings) -> None:
    earlier = create_job(sessions)
    place(sessions)
    with sessions.begin() as session:
        artifacts.add_checkpoint(
            session, earlier, 1, CheckpointEvent(time=1, step=1, path="adapter", bytes=1, final=True)
        )
        leases.free(session, earlier, 1, "worker")
    publish_rows(sessions)
    failure = run(sessions, settings, adapter={"start_from": earlier}).failure
    assert failure is not None
    assert (failure["code"], failure["param"]) == ("recipe_invalid", "adapter.start_from")
    assert "no longer on the server" in failure["message"]


def test_oversized_attempt_trains_a_smaller_batch(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="fits=4", batch={"micro_batch_size": 8, "gradient_accumulation_steps": 2})
    assert (job.status, job.failure) == (JobStatus.QUEUED, None)
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    trained, requested = json.loads(run_dir(settings, job, 2).recipe.read_text())["batch"], job.recipe["batch"]
    assert (trained["micro_batch_size"], trained["effective_batch_size"], trained["gradient_accumulation_steps"]) == (
        4,
        16,
        None,
    )
    assert (requested["micro_batch_size"], requested["gradient_accumulation_steps"]) == (8, 2)


def test_a_job_keeps_the_exit_report_of_its_processes(sessions: Sessions, settings: WorkerSettings) -> None:
    exit_report = run(sessions, settings, name="orphan").exit_report
    assert exit_report is not None
    assert exit_report["stop_requested"] is None
    assert [(each["name"], each["killed"]) for each in exit_report["processes"]][-1] == ("sleep", True)
    assert not any(Path(f"/proc/{each['pid']}").exists() for each in exit_report["processes"])


def test_worker_fault_lets_the_job_retry(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = create_job(sessions)
    (settings.runs / job_id / "attempt-1").mkdir(parents=True)
    assert run_next(sessions, settings, job_id).status is JobStatus.QUEUED
    (retry,) = events_of_type(sessions, job_id, "retry")
    assert retry["code"] == "worker_failed"
    assert "FileExistsError" in retry["message"]
    assert run_next(sessions, settings, job_id).status is JobStatus.SUCCEEDED


def test_worker_bug_is_tried_once_more(sessions: Sessions, settings: WorkerSettings) -> None:
    impossible = settings.model_copy(update={"trainer": ["a name with \0 in it"]})
    job = run(sessions, impossible)
    assert job.status is JobStatus.QUEUED
    job = run_next(sessions, impossible, job.id)
    assert (job.status, job.attempt) == (JobStatus.FAILED, 2)
    assert job.failure is not None
    assert job.failure["code"] == "internal_error"
    assert "NUL" in job.failure["message"]


def test_trainer_knows_worker_run_and_cores(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="environment")
    given = environment(settings, job)
    assert given["FINETUNED_WORKER"] == "worker"
    assert given["FINETUNED_RUN"] == str(run_dir(settings, job).path)
    assert given["FINETUNED_CORES"] == ",".join(map(str, sorted(os.sched_getaffinity(0))))
    assert "CUDA_VISIBLE_DEVICES" not in given


def test_trainer_sees_the_gpus_that_it_was_given(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = make_gpus(monkeypatch, tmp_path, 3)
    job = run(sessions, settings, machine, name="environment", resources={"gpus": 2})
    given = environment(settings, job)
    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert "FINETUNED_CORES" not in given


def make_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int) -> Machine:
    have = fake_nvml.stand_in(monkeypatch, tmp_path)
    uuids = [f"GPU-{number}" for number in range(count)]
    have(*({"uuid": uuid} for uuid in uuids))
    gpus = [Gpu(uuid=uuid, name="one", memory_bytes=1, compute_capability=(9, 0)) for uuid in uuids]
    return Machine(gpus=gpus, cores=1, cpu_bf16=False)


def test_lost_gpus_fail_one_job_alone(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = make_gpus(monkeypatch, tmp_path, 2)
    job = run(sessions, settings, machine, name="fail=devices_unavailable once")
    assert job.status is JobStatus.QUEUED
    (retry,) = events_of_type(sessions, job.id, "retry")
    assert retry["code"] == "devices_unavailable"
    with sessions.begin() as session:
        ((worker, alive),) = workers.list_workers(session)
        shown = worker_out(worker, alive, workers.list_devices(session), [], [])
        assert scheduler.schedule(session) == []
        workers.register(session, "worker", "restarted", "localhost", machine)
        workers.heartbeat(session, "worker", "restarted", {}, draining=False)
    assert [device.status for device in shown.devices] == ["unavailable"] * 2
    assert retry["message"] in str(shown.devices[0].reason)
    restarted = run_next(sessions, settings, job.id, machine)
    assert (restarted.status, restarted.attempt) == (JobStatus.SUCCEEDED, 2)


def environment(settings: WorkerSettings, job: Job) -> dict[str, str]:
    read: dict[str, str] = json.loads((run_dir(settings, job).path / "environment.json").read_text())
    return read


def test_uploaded_dataset_is_trained_in_place(sessions: Sessions, settings: WorkerSettings) -> None:
    rows = settings.home / "blobs" / "ab" / ("ab" * 32)
    rows.parent.mkdir(parents=True)
    (settings.home / "datasets" / "rows.jsonl").rename(rows)
    with sessions.begin() as session:
        source = datasets.Source(rows.stat().st_size, sha256=rows.name)
        dataset_id = datasets.create(session, "default", "rows.jsonl", source).id
    job = run(sessions, settings, dataset=dataset_id, evaluation={"dataset": dataset_id})
    assert job.status is JobStatus.SUCCEEDED
    laid_out = json.loads(RunDir(settings.runs / job.id / "attempt-1").recipe.read_text())
    assert laid_out["dataset"]["path"] == laid_out["evaluation"]["dataset"]["path"] == str(rows)


def test_missing_dataset_fails_in_words(sessions: Sessions, settings: WorkerSettings) -> None:
    gone = "file-" + "0" * 24
    job = run(sessions, settings, dataset=gone)
    assert job.failure is not None
    assert (job.status, job.failure["code"]) == (JobStatus.FAILED, "dataset_not_found")
    assert job.failure["message"] == f"dataset: no dataset {gone}"
    job = run(sessions, settings, evaluation={"dataset": gone})
    assert job.failure is not None
    assert (job.failure["param"], job.failure["message"]) == (
        "evaluation.dataset",
        f"evaluation.dataset: no dataset {gone}",
    )


def test_path_moved_since_the_post_fails(sessions: Sessions, settings: WorkerSettings) -> None:
    settings = settings.model_copy(update={"allowed_paths": [settings.home.parent]})
    private = settings.home / "blobs" / "rows.jsonl"
    private.parent.mkdir()
    (settings.home / "datasets" / "rows.jsonl").rename(private)
    (settings.home / "datasets" / "rows.jsonl").symlink_to(private)
    for dataset in ("rows.jsonl", str(private), f"{settings.home.name}/blobs/rows.jsonl"):
        assert reason(run(sessions, settings, dataset=dataset)) == "dataset_not_found"
    link = settings.home / "models" / "tiny" / "chat_template.jinja"
    link.unlink()
    link.symlink_to(private)
    assert reason(run(sessions, settings)) == "model_unsupported"


def test_linked_model_is_used_in_place(
    sessions: Sessions, settings: WorkerSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("disk") / "tiny"
    (settings.home / "models" / "tiny").rename(elsewhere)
    (settings.home / "models" / "tiny").symlink_to(elsewhere)
    job = run(sessions, settings)
    assert job.status is JobStatus.SUCCEEDED
    assert json.loads(run_dir(settings, job).recipe.read_text())["model"] == str(elsewhere)


def reason(job: Job) -> str:
    assert job.status is JobStatus.FAILED
    assert job.failure is not None
    return str(job.failure["code"])
