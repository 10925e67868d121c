"""An attempt that goes on from what earlier ones saved and reported."""

import json
import subprocess
from datetime import timedelta

import pytest
import sqlalchemy as sa

import contract.run_dir
from contract.run_dir import RunDir, list_states, write_checksums
from contract.status import JobStatus
from store import artifacts
from store.jobs import attempts, curves, jobs, progress
from store.jobs.curves import CurveRange
from store.scheduling import leases
from store.session import Sessions
from tests.support.jobs import create_job, events_of_type
from tests.support.waiting import until
from tests.worker.attempt.attempts import CPU, Begin, get_ended, place, run, run_dir, run_next, states
from worker.attempt import lifecycle
from worker.attempt.context import Attempt
from worker.attempt.timing import Timing
from worker.settings import WorkerSettings

OFTEN = Timing(heartbeat=0.0)


def test_damaged_state_is_passed_over_and_told_of(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="steps=6 every=2 torn kill=9 once")
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    assert [each["resumed_step"] for each in events_of_type(sessions, job.id, "started")] == [0, 4]
    (warning,) = events_of_type(sessions, job.id, "log")
    assert warning["level"] == "warning"
    assert "attempt-1/step-000006 is damaged" in warning["message"]


def test_two_states_of_earlier_attempts_are_kept(sessions: Sessions, settings: WorkerSettings) -> None:
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


def test_lease_is_renewed_while_states_are_read(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_reading(monkeypatch)
    job_id = create_job(sessions, name="steps=4 every=2 kill=9 once")
    fill(run_dir(settings, run_next(sessions, settings, job_id)), 60)
    part = place(sessions)
    expire(sessions, job_id)
    running = begin_beside(part=part, timing=OFTEN)

    def has_lease_and_no_trainer() -> bool:
        with sessions.begin() as session:
            assert jobs.get(session, job_id).attempt == 2
            assert not running.run_dir.log.exists()
            return not jobs.list_overdue(session, "worker", timedelta(0))

    until(has_lease_and_no_trainer)
    running.end()
    assert get_ended(sessions, job_id).status is JobStatus.SUCCEEDED


def test_revoked_attempt_removes_no_state(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_reading(monkeypatch)
    job = run(sessions, settings, name="steps=8 every=2 kill=9 once")
    stale = Attempt(sessions, settings, CPU, place(sessions), lambda: False, OFTEN)
    with sessions.begin() as session:
        attempts.fail_lost(session, job.id, 2, settings.retries)
    lifecycle.run(stale)
    assert len(states(run_dir(settings, job))) == 4


def slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time."""
    monkeypatch.setattr(contract.run_dir, "_PIECE", 1)


def fill(run: RunDir, size: int) -> None:
    for state in list_states([run]):
        (state / "weights").write_bytes(bytes(size))
        write_checksums(state)


def expire(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        jobs.get(session, job_id).lease_expires_at = sa.func.now() - timedelta(seconds=1)


def test_finished_trainer_of_a_dead_worker_is_kept(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = create_job(sessions, name="steps=3")
    before = Attempt(sessions, settings, CPU, place(sessions), lambda: False)
    before.run_dir.path.mkdir(parents=True)
    before.run_dir.recipe.write_text(json.dumps(before.part.recipe))
    command = [*(settings.trainer or []), str(before.run_dir.path), "--cache", str(settings.cache)]
    subprocess.run(command, check=True, capture_output=True)
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 1, settings.retries)
        leases.free(session, job_id, 1, "worker")
    job = run_next(sessions, settings, job_id)
    assert (job.status, job.attempt) == (JobStatus.SUCCEEDED, 2)
    assert not run_dir(settings, job, 2).events.exists()
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == 3
        assert artifacts.get(session, job_id, "adapter.tar").path == f"{job_id}/attempt-1/adapter"


def test_resumed_attempt_reports_its_saved_past(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = create_job(sessions, name="steps=3 every=2 kill=9 once")
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
        assert json.loads(curves.read(session, job_id, None, CurveRange()) or "")["columns"]["step"] == [1, 2, 3]
    assert events_of_type(sessions, job_id, "started")[0]["resumed_step"] == 2


def lose(sessions: Sessions, settings: WorkerSettings, job_id: str, number: int) -> None:
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, number, settings.retries)
        leases.free(session, job_id, number, "worker")


def test_resumed_attempt_fences_earlier_ones(sessions: Sessions, settings: WorkerSettings) -> None:
    job = run(sessions, settings, name="steps=4 every=2 kill=9 once")
    assert not run_dir(settings, job).superseded.exists()
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    assert [run_dir(settings, job, number).superseded.exists() for number in (1, 2)] == [True, False]
