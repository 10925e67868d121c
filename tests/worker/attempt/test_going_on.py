"""An attempt that goes on from what those before it have saved and told."""

import json
import subprocess
from datetime import timedelta

import pytest
import sqlalchemy as sa

import contract.run_dir
from contract.run_dir import RunDir, saved_states, seal
from contract.status import JobStatus
from store import artifacts
from store.jobs import attempts, jobs, progress
from store.scheduling import leases
from store.session import Sessions
from tests.worker.attempt.beginning import (
    CPU,
    Begin,
    create,
    get,
    place,
    run,
    run_dir,
    run_next,
    states,
    told,
)
from tests.worker.test_guard import until
from worker.attempt import lifecycle
from worker.attempt.lifecycle import Attempt
from worker.settings import WorkerSettings


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
    lifecycle.run(stale)
    assert len(states(run_dir(settings, job))) == 4


def slow_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte at a time, and a heartbeat after each."""
    monkeypatch.setattr(contract.run_dir, "_PIECE", 1)
    monkeypatch.setattr(lifecycle, "HEARTBEAT", 0.0)


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


def test_an_attempt_that_goes_on_tells_those_before_to_save_no_more(
    sessions: Sessions, settings: WorkerSettings
) -> None:
    job = run(sessions, settings, name="steps=4 every=2 kill=9 once")
    assert not run_dir(settings, job).superseded.exists()
    job = run_next(sessions, settings, job.id)
    assert job.status is JobStatus.SUCCEEDED
    assert [run_dir(settings, job, number).superseded.exists() for number in (1, 2)] == [True, False]
