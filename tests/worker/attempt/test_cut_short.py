"""An attempt that is told to stop, loses the database or a machine, or is taken away."""

import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from contract.status import JobStatus
from store.jobs import actions, attempts, jobs, progress
from store.jobs.jobs import Part
from store.models import Worker
from store.scheduling import leases, workers
from store.session import Sessions
from tests.placing import begin
from tests.worker.attempt.beginning import CPU, Background, Begin, Way, create, get, states, told
from tests.worker.test_guard import until
from worker.attempt import lifecycle
from worker.settings import WorkerSettings


def cut_off_soon(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"cut_off": timedelta(seconds=2)})


def test_a_trainer_whose_worker_cannot_reach_the_database_saves_and_its_job_goes_back_to_the_queue(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    job_id = create(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(way.sessions, cut_off_soon(settings))
    running.wait_for_events(4)
    way.shut()
    until(running.exit_report.exists)
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
    monkeypatch.setattr(lifecycle, "ALONE", 0.1)
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
        until(running.exit_report.exists)
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
            actions.cancel(session, job_id)


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
    monkeypatch.setattr(lifecycle, "HEARTBEAT", 0.1)
    deaf = {"trainer": [sys.executable, "-c", DEAF], "grace": timedelta(seconds=2)}
    job_id = create(sessions)
    running = begin_beside(its_settings=settings.model_copy(update=deaf))
    running.wait_for_a_word()
    with sessions.begin() as session:
        actions.pause(session, job_id)
    until((running.run_dir.path / "asked").exists)
    with sessions.begin() as session:
        actions.resume(session, job_id)
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
    monkeypatch.setattr(lifecycle, "ALONE", 0.1)
    part = place_on_two(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(part=part)
    running.wait_for_events(4)
    with sessions.begin() as session:
        leases.free(session, part.job_id, 1, "worker-2")
    running.end()
    job = get(sessions, part.job_id)
    assert (job.status, job.retries) == (JobStatus.QUEUED, 1)
    assert told(sessions, part.job_id, "retry")[0]["code"] == "worker_lost"
    assert len(states(running.run_dir)) == 1


def test_a_cancelled_job_is_not_told_so_while_a_silent_machine_may_train_it(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin
) -> None:
    part = place_on_two(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(part=part)
    running.wait_for_events(4)
    silent_for(sessions, settings.unseen)
    with sessions.begin() as session:
        actions.cancel(session, part.job_id)

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
    assert running.exit_report.exists()
    job = get(sessions, job_id)
    assert (job.status, job.exit_report, job.event_count) == (JobStatus.FAILED, None, before)
