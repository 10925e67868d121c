import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

import contract.run_dir
from contract.events import Checkpoint
from contract.machine import Gpu, Machine
from contract.recipe import Recipe
from contract.run_dir import RunDir, saved_states, seal
from contract.status import JobStatus
from store import artifacts, attempts, datasets, jobs, leases, progress, wishes, workers
from store.jobs import Part
from store.models import Job, Worker
from store.progress import Cursor
from store.session import Sessions, make_sessions
from tests import fake_nvml
from tests.files import write_dataset, write_model
from tests.placing import begin, cpu
from tests.publishing import publish_rows, publishing_on
from tests.service import FAKE_TRAINER
from tests.worker.test_guard import until
from worker import attempt
from worker.attempt import Attempt
from worker.settings import WorkerSettings

CPU = cpu(1)


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions) -> Iterator[WorkerSettings]:
    """Of a worker whose clerk is there."""
    write_model(tmp_path / "models" / "tiny")
    write_dataset(tmp_path / "datasets" / "rows.jsonl")
    settings = WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker="worker",
        trainer=[sys.executable, str(FAKE_TRAINER)],
        retry_wait=timedelta(0),
    )
    with publishing_on(sessions, settings):
        yield settings


def create(sessions: Sessions, **fields: Any) -> str:
    with sessions.begin() as session:
        return jobs.create(session, Recipe.model_validate({"model": "tiny", "dataset": "rows.jsonl", **fields})).id


def place(sessions: Sessions, machine: Machine = CPU) -> Part:
    """The job that waits, begun on the machine."""
    with sessions.begin() as session:
        workers.register(session, "worker", "first", "localhost", machine)
        (part,) = begin(session)
    return part


def run(sessions: Sessions, settings: WorkerSettings, machine: Machine = CPU, **fields: Any) -> Job:
    """A new job, after its first attempt."""
    return run_next(sessions, settings, create(sessions, **fields), machine)


def run_next(sessions: Sessions, settings: WorkerSettings, job_id: str, machine: Machine = CPU) -> Job:
    attempt.run(Attempt(sessions, settings, machine, place(sessions, machine), lambda: False))
    return get(sessions, job_id)


def get(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        assert workers.leases(session) == []
        return jobs.get(session, job_id)


def told(sessions: Sessions, job_id: str, kind: str) -> list[dict[str, Any]]:
    with sessions.begin() as session:
        happened = progress.events_since(session, job_id, Cursor(), limit=1000)
    return [each.data for each in happened if each.type == kind]


def run_dir(settings: WorkerSettings, job: Job, number: int = 1) -> RunDir:
    return RunDir(settings.runs / artifacts.run_path(job.id, number))


def states(run: RunDir) -> list[str]:
    return [path.name for path in saved_states([run])]


class Background:
    """An attempt that is under way."""

    def __init__(self, sessions: Sessions, settings: WorkerSettings, part: Part) -> None:
        self.draining = threading.Event()
        self.attempt = Attempt(sessions, settings, CPU, part, self.draining.is_set)
        self._thread = threading.Thread(target=attempt.run, args=(self.attempt,))
        self._thread.start()

    @property
    def run_dir(self) -> RunDir:
        return self.attempt.run_dir

    @property
    def receipt(self) -> Path:
        """There when every process has gone."""
        return self.run_dir.path / "receipt.json"

    def wait_for_a_word(self) -> None:
        until(lambda: self.run_dir.log.exists() and self.run_dir.log.stat().st_size > 0)

    def wait_for_events(self, count: int) -> None:
        until(lambda: self.run_dir.events.exists() and self.run_dir.events.read_text().count("\n") >= count)

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()


class Way:
    """To the database, of one worker alone."""

    def __init__(self, database_url: str, folder: Path) -> None:
        url = sa.make_url(database_url)
        self._path = folder / "way"
        self._socket = str(url.query["host"])
        self.open()
        url = url.update_query_dict({"host": str(self._path)})
        self.sessions = make_sessions(sa.create_engine(url, poolclass=sa.NullPool))

    def open(self) -> None:
        if not self._path.is_symlink():
            self._path.symlink_to(self._socket)

    def shut(self) -> None:
        self._path.unlink()


@pytest.fixture
def way(database_url: str) -> Iterator[Way]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path may not be as long as pytest's are
        yield Way(database_url, Path(folder))


Begin = Callable[..., Background]


@pytest.fixture
def begin_beside(sessions: Sessions, settings: WorkerSettings, way: Way) -> Iterator[Begin]:
    """Begins with the job that waits, in a thread."""
    begun: list[Background] = []

    def begin_beside(
        its_sessions: Sessions = sessions, its_settings: WorkerSettings = settings, part: Part | None = None
    ) -> Background:
        begun.append(Background(its_sessions, its_settings, part or place(sessions)))
        return begun[-1]

    yield begin_beside
    way.open()
    for each in begun:
        each.draining.set()
        each.end()


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
    create(sessions, precision="bf16")
    part = place(sessions, Machine(gpus=[], cores=1, cpu_bf16=True))
    attempt.run(Attempt(sessions, settings, CPU, part, lambda: False))
    job = get(sessions, part.job_id)
    assert job.failure is not None
    assert (job.failure["reason"], job.failure["param"]) == ("precision_unavailable", "precision")
    assert job.command is None


def test_a_job_starts_from_the_adapter_that_another_has_saved(sessions: Sessions, settings: WorkerSettings) -> None:
    earlier = run(sessions, settings, name="steps=4 every=2")
    for start_from, folder in ((earlier.id, "adapter"), (f"{earlier.id}/checkpoint-2", "checkpoints/step-000002")):
        job = run(sessions, settings, adapter={"start_from": start_from})
        assert job.status is JobStatus.SUCCEEDED
        recipe = json.loads(run_dir(settings, job).recipe.read_text())
        assert recipe["adapter"]["start_from"] == str(settings.runs / earlier.id / "attempt-1" / folder)
        assert job.recipe["adapter"]["start_from"] == start_from


def test_a_job_whose_earlier_adapter_has_gone_fails_with_that_reason(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    earlier = create(sessions)
    place(sessions)
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, earlier, 1, Checkpoint(time=1, step=1, path="adapter", bytes=1, final=True))
        leases.free(session, earlier, 1, "worker")
    publish_rows(sessions)
    failure = run(sessions, settings, adapter={"start_from": earlier}).failure
    assert failure is not None
    assert (failure["reason"], failure["param"]) == ("recipe_invalid", "adapter.start_from")
    assert "no longer on the server" in failure["message"]


def test_what_did_not_fit_is_trained_with_the_smaller_batch(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="fits=4", batch={"micro_batch": 8, "accumulation": 2})
    assert (job.status, job.failure) == (JobStatus.QUEUED, None)
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    trained, asked = json.loads(run_dir(settings, job, 2).recipe.read_text())["batch"], job.recipe["batch"]
    assert (trained["micro_batch"], trained["effective"], trained["accumulation"]) == (4, 16, None)
    assert (asked["micro_batch"], asked["accumulation"]) == (8, 2)


def test_a_job_keeps_the_receipt_of_its_processes(sessions: Sessions, settings: WorkerSettings) -> None:
    receipt = run(sessions, settings, name="orphan").receipt
    assert receipt is not None
    assert receipt["asked"] is None
    assert [(each["name"], each["killed"]) for each in receipt["processes"]][-1] == ("sleep", True)
    assert not any(Path(f"/proc/{each['pid']}").exists() for each in receipt["processes"])


def test_a_fault_of_the_worker_itself_lets_the_job_be_tried_again(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = create(sessions)
    (settings.runs / job_id / "attempt-1").mkdir(parents=True)
    assert run_next(sessions, settings, job_id).status is JobStatus.QUEUED
    (retry,) = told(sessions, job_id, "retry")
    assert retry["reason"] == "worker_failed"
    assert "FileExistsError" in retry["message"]
    assert run_next(sessions, settings, job_id).status is JobStatus.SUCCEEDED


def test_a_damaged_state_is_passed_over_and_told_of(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="steps=6 every=2 torn kill=9 once")
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    assert [each["resumed_step"] for each in told(sessions, job.id, "started")] == [0, 4]
    (warning,) = told(sessions, job.id, "log")
    assert warning["level"] == "warning"
    assert "attempt-1/step-000006 is damaged" in warning["message"]


def test_of_the_attempts_before_two_states_are_kept_and_none_of_a_job_that_is_done(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job = run(sessions, settings, name="steps=8 every=2 kill=9 once")
    assert states(run_dir(settings, job)) == ["step-000008", "step-000006", "step-000004", "step-000002"]
    with sessions.begin() as session:
        jobs.get(session, job.id).recipe = {**job.recipe, "name": "steps=8 every=2 kill=9"}
    run_next(sessions, settings, job.id)
    assert states(run_dir(settings, job)) == ["step-000008", "step-000006"]
    with sessions.begin() as session:
        jobs.get(session, job.id).recipe = {**job.recipe, "name": "steps=10 every=2"}
    assert run_next(sessions, settings, job.id).status is JobStatus.SUCCEEDED
    assert [states(run_dir(settings, job, number)) for number in (1, 2, 3)] == [[], [], []]


def test_the_lease_is_kept_while_the_states_of_the_attempts_before_are_read(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_reading(monkeypatch)
    job_id = create(sessions, name="steps=4 every=2 kill=9 once")
    fill(run_dir(settings, run_next(sessions, settings, job_id)), 60)
    part = place(sessions)
    expire(sessions, job_id)
    running = begin_beside(part=part)

    def has_lease_and_no_trainer() -> bool:
        with sessions.begin() as session:
            assert jobs.get(session, job_id).attempt == 2
            assert not running.run_dir.log.exists()
            return not jobs.overdue(session, "worker", timedelta(0))

    until(has_lease_and_no_trainer)
    running.end()
    assert get(sessions, job_id).status is JobStatus.SUCCEEDED


def test_an_attempt_that_was_taken_away_before_it_went_on_removes_no_state(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_reading(monkeypatch)
    job = run(sessions, settings, name="steps=8 every=2 kill=9 once")
    stale = Attempt(sessions, settings, CPU, place(sessions), lambda: False)
    with sessions.begin() as session:
        attempts.lost(session, job.id, 2, settings.retries)
    attempt.run(stale)
    assert len(states(run_dir(settings, job))) == 4


def slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time, and a heartbeat after each."""
    monkeypatch.setattr(contract.run_dir, "_PIECE", 1)
    monkeypatch.setattr(attempt, "HEARTBEAT", 0.0)


def fill(run: RunDir, size: int) -> None:
    for state in saved_states([run]):
        (state / "weights").write_bytes(bytes(size))
        seal(state)


def expire(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        jobs.get(session, job_id).lease_expires_at = sa.func.now() - timedelta(seconds=1)


def test_a_job_whose_trainer_came_to_its_end_without_its_worker_is_not_trained_again(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job_id = create(sessions, name="steps=3")
    before = Attempt(sessions, settings, CPU, place(sessions), lambda: False)
    before.run_dir.path.mkdir(parents=True)
    before.run_dir.recipe.write_text(json.dumps(before.part.recipe))
    command = [*(settings.trainer or []), str(before.run_dir.path), "--cache", str(settings.cache)]
    subprocess.run(command, check=True, capture_output=True)
    with sessions.begin() as session:
        attempts.lost(session, job_id, 1, settings.retries)
        leases.free(session, job_id, 1, "worker")
    job = run_next(sessions, settings, job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert not run_dir(settings, job, 2).events.exists()
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == 3
        assert artifacts.get(session, job_id, "adapter.tar.gz").path == f"{job_id}/attempt-1/adapter"


def test_what_the_attempt_that_saved_the_state_had_told_is_told_though_another_came_between(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job_id = create(sessions, name="steps=3 every=2 kill=9 once")
    run_dir = Attempt(sessions, settings, CPU, place(sessions), lambda: False).run_dir
    run_dir.path.mkdir(parents=True)
    with sessions.begin() as session:
        run_dir.recipe.write_text(json.dumps(jobs.get(session, job_id).recipe))
    subprocess.run([*(settings.trainer or []), str(run_dir.path), "--cache", str(settings.cache)], capture_output=True)
    lose(sessions, settings, job_id, 1)
    place(sessions)
    lose(sessions, settings, job_id, 2)
    job = run_next(sessions, settings, job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 3)
    with sessions.begin() as session:
        assert json.loads(progress.curves(session, job_id, None, 0, 9, None) or "")["columns"]["step"] == [1, 2, 3]
    assert told(sessions, job_id, "started")[0]["resumed_step"] == 2


def lose(sessions: Sessions, settings: WorkerSettings, job_id: str, number: int) -> None:
    with sessions.begin() as session:
        attempts.lost(session, job_id, number, settings.retries)
        leases.free(session, job_id, number, "worker")


def cut_off_soon(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"cut_off": timedelta(seconds=2)})


def test_a_trainer_whose_worker_cannot_reach_the_database_saves_and_its_job_goes_back_to_the_queue(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    job_id = create(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(way.sessions, cut_off_soon(settings))
    running.wait_for_events(4)
    way.shut()
    until(running.receipt.exists)
    with sessions.begin() as session:
        assert jobs.get(session, job_id).status is JobStatus.RUNNING
    way.open()
    running.end()
    job = get(sessions, job_id)
    assert (job.status, job.retries) == (JobStatus.QUEUED, 0)
    (done,) = told(sessions, job_id, "done")
    assert states(running.run_dir) == [f"step-{done['step']:06d}"]
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == done["step"]


def test_a_database_that_is_away_for_less_leaves_a_trainer_alone(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is away for longer than a machine of several may be alone."""
    monkeypatch.setattr(attempt, "ALONE", 0.1)
    job_id = create(sessions, name="steps=40 sleep=0.05")
    running = begin_beside(way.sessions, settings)
    running.wait_for_events(4)
    way.shut()
    running.wait_for_events(24)
    way.open()
    running.end()
    assert get(sessions, job_id).status is JobStatus.SUCCEEDED
    assert len(told(sessions, job_id, "started")) == 1
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == 40


def test_a_trainer_that_is_told_to_stop_while_it_starts_has_not_failed(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    def drain(running: Background) -> None:
        running.draining.set()

    def lose_the_database(running: Background) -> None:
        way.shut()
        until(running.receipt.exists)
        way.open()

    for happens in (drain, lose_the_database):
        job_id = create(sessions, name="late=100")
        running = begin_beside(way.sessions, cut_off_soon(settings))
        running.wait_for_a_word()
        happens(running)
        running.end()
        assert get(sessions, job_id).status is JobStatus.QUEUED
        assert told(sessions, job_id, "retry") == []
        with sessions.begin() as session:
            wishes.cancel(session, job_id)


# Deaf to SIGTERM, which it tells of.
DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1], "asked").touch())
print("starts", flush=True)
while True: time.sleep(1000)
"""


def test_a_pause_that_is_taken_back_while_the_trainer_starts_is_no_failure(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "HEARTBEAT", 0.1)
    deaf = {"trainer": [sys.executable, "-c", DEAF], "grace": timedelta(seconds=2)}
    job_id = create(sessions)
    running = begin_beside(its_settings=settings.model_copy(update=deaf))
    running.wait_for_a_word()
    with sessions.begin() as session:
        wishes.pause(session, job_id)
    until((running.run_dir.path / "asked").exists)
    with sessions.begin() as session:
        wishes.resume(session, job_id)
    running.end()
    assert get(sessions, job_id).status is JobStatus.QUEUED
    assert told(sessions, job_id, "retry") == []


def place_on_two(sessions: Sessions, **fields: Any) -> Part:
    """A new job, begun on this machine, which is its head, and on another."""
    create(sessions, resources={"nodes": 2}, **fields)
    with sessions.begin() as session:
        for name in ("worker", "worker-2"):
            workers.register(session, name, "first", "localhost", CPU)
        head, _ = begin(session)
    assert head.rank == 0
    return head


def test_a_machine_that_loses_its_part_is_counted_though_the_others_have_saved(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lose it each time."""
    monkeypatch.setattr(attempt, "ALONE", 0.1)
    part = place_on_two(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(part=part)
    running.wait_for_events(4)
    with sessions.begin() as session:
        leases.free(session, part.job_id, 1, "worker-2")
    running.end()
    job = get(sessions, part.job_id)
    assert (job.status, job.retries) == (JobStatus.QUEUED, 1)
    assert told(sessions, part.job_id, "retry")[0]["reason"] == "worker_lost"
    assert len(states(running.run_dir)) == 1


def test_a_cancelled_job_is_not_told_so_while_a_silent_machine_may_train_it(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin
) -> None:
    part = place_on_two(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(part=part)
    running.wait_for_events(4)
    silent_for(sessions, settings.unseen)
    with sessions.begin() as session:
        wishes.cancel(session, part.job_id)

    def waits_for_the_other() -> bool:
        with sessions.begin() as session:
            return jobs.get(session, part.job_id).rendezvous == ""

    until(waits_for_the_other)
    with sessions.begin() as session:
        assert jobs.get(session, part.job_id).status is JobStatus.RUNNING
    silent_for(sessions, settings.unseen + workers.SILENCE)
    running.end()
    with sessions.begin() as session:
        assert jobs.get(session, part.job_id).status is JobStatus.CANCELLED


def silent_for(sessions: Sessions, time: timedelta) -> None:
    with sessions.begin() as session:
        silent = sa.update(Worker).where(Worker.name == "worker-2")
        session.execute(silent.values(seen_at=sa.func.now() - time))


def test_an_attempt_that_goes_on_tells_those_before_to_save_no_more(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job = run(sessions, settings, name="steps=4 every=2 kill=9 once")
    assert not run_dir(settings, job).superseded.exists()
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    assert [run_dir(settings, job, number).superseded.exists() for number in (1, 2)] == [True, False]


def test_an_attempt_that_was_taken_away_ends_its_trainer_frees_its_device_and_writes_nothing(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin
) -> None:
    job_id = create(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside()
    running.wait_for_events(3)
    with sessions.begin() as session:
        attempts.lost(session, job_id, 1, replace(settings.retries, most=0))
        before = jobs.get(session, job_id).event_count
    running.end()
    assert running.receipt.exists()
    job = get(sessions, job_id)
    assert (job.status, job.receipt, job.event_count) == (JobStatus.FAILED, None, before)


def test_a_trainer_knows_its_worker_its_run_and_its_cores(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="environment")
    given = environment(settings, job)
    assert given["FINETUNED_WORKER"] == "worker"
    assert given["FINETUNED_RUN"] == str(run_dir(settings, job).path)
    assert given["FINETUNED_CORES"] == ",".join(map(str, sorted(os.sched_getaffinity(0))))
    assert "CUDA_VISIBLE_DEVICES" not in given


def test_a_trainer_sees_the_gpus_that_it_was_given(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    have = fake_nvml.stand_in(monkeypatch, tmp_path)
    uuids = [f"GPU-{number}" for number in range(3)]
    have(*({"uuid": uuid} for uuid in uuids))
    gpus = [Gpu(uuid=uuid, name="one", memory_bytes=1, compute_capability=(9, 0)) for uuid in uuids]
    machine = Machine(gpus=gpus, cores=1, cpu_bf16=False)
    job = run(sessions, settings, machine, name="environment", resources={"gpus": 2})
    given = environment(settings, job)
    assert given["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert "FINETUNED_CORES" not in given


def environment(settings: WorkerSettings, job: Job) -> dict[str, str]:
    read: dict[str, str] = json.loads((run_dir(settings, job).path / "environment.json").read_text())
    return read


def test_a_dataset_that_was_uploaded_is_trained_on_where_it_lies(sessions: Sessions, settings: WorkerSettings) -> None:
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


def test_a_dataset_that_is_gone_fails_the_job_in_words_for_its_owner(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    gone = "file-" + "0" * 24
    job = run(sessions, settings, dataset=gone)
    assert job.failure is not None
    assert (job.status, job.failure["reason"]) == (JobStatus.FAILED, "dataset_not_found")
    assert job.failure["message"] == f"dataset: no dataset {gone}"
    job = run(sessions, settings, evaluation={"dataset": gone})
    assert job.failure is not None
    assert (job.failure["param"], job.failure["message"]) == (
        "evaluation.dataset",
        f"evaluation.dataset: no dataset {gone}",
    )
