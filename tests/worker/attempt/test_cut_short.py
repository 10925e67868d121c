"""An attempt that is stopped, loses the database or a machine, or is taken away."""

import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from contract.status import JobStatus
from store.jobs import actions, attempts, jobs, progress
from store.jobs.transitions import AttemptPart
from store.models import Worker
from store.scheduling import leases, workers
from store.session import Sessions
from tests.support.jobs import begin, create_job, events_of_type
from tests.support.waiting import until
from tests.worker.attempt.attempts import CPU, Background, Begin, Way, get_ended, states
from worker.attempt.timing import Timing
from worker.settings import WorkerSettings


def cut_off_soon(settings: WorkerSettings) -> WorkerSettings:
    return settings.model_copy(update={"cut_off": timedelta(seconds=2)})


def test_trainer_without_a_database_saves_and_requeues(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    job_id = create_job(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(way.sessions, cut_off_soon(settings))
    running.wait_for_events(4)
    way.shut()
    until(running.exit_report.exists)
    with sessions.begin() as session:
        assert jobs.get(session, job_id).status is JobStatus.RUNNING
    way.open()
    running.end()
    job = get_ended(sessions, job_id)
    assert (job.status, job.retries) == (JobStatus.QUEUED, 0)
    (done,) = events_of_type(sessions, job_id, "done")
    assert states(running.run_dir) == [f"step-{done['step']:06d}"]
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == done["step"]


def test_short_database_outage_leaves_the_trainer_alone(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    """Also where it is away for longer than a machine of several may be alone."""
    job_id = create_job(sessions, name="steps=40 sleep=0.05")
    running = begin_beside(way.sessions, settings, timing=Timing(alone=0.1))
    running.wait_for_events(4)
    way.shut()
    running.wait_for_events(24)
    way.open()
    running.end()
    assert get_ended(sessions, job_id).status is JobStatus.SUCCEEDED
    assert len(events_of_type(sessions, job_id, "started")) == 1
    with sessions.begin() as session:
        assert progress.latest(session, [job_id])[job_id].metric.step == 40


def test_trainer_stopped_at_its_start_has_not_failed(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin, way: Way
) -> None:
    def drain(running: Background) -> None:
        running.draining.set()

    def lose_the_database(running: Background) -> None:
        way.shut()
        until(running.exit_report.exists)
        way.open()

    for happens in (drain, lose_the_database):
        job_id = create_job(sessions, name="late=100")
        running = begin_beside(way.sessions, cut_off_soon(settings))
        running.wait_for_a_word()
        happens(running)
        running.end()
        assert get_ended(sessions, job_id).status is JobStatus.QUEUED
        assert events_of_type(sessions, job_id, "retry") == []
        with sessions.begin() as session:
            actions.cancel(session, job_id)


# Deaf to SIGTERM, which it tells of.
DEAF = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1], "signalled").touch())
print("starts", flush=True)
while True: time.sleep(1000)
"""


def test_withdrawn_pause_is_no_failure(sessions: Sessions, settings: WorkerSettings, begin_beside: Begin) -> None:
    deaf = {"trainer": [sys.executable, "-c", DEAF], "grace": timedelta(seconds=2)}
    job_id = create_job(sessions)
    running = begin_beside(its_settings=settings.model_copy(update=deaf), timing=Timing(heartbeat=0.1))
    running.wait_for_a_word()
    with sessions.begin() as session:
        actions.pause(session, job_id)
    until((running.run_dir.path / "signalled").exists)
    with sessions.begin() as session:
        actions.resume(session, job_id)
    running.end()
    assert get_ended(sessions, job_id).status is JobStatus.QUEUED
    assert events_of_type(sessions, job_id, "retry") == []


def place_on_two(sessions: Sessions, **fields: Any) -> AttemptPart:
    """A new job, begun on this machine, which is its head, and on another."""
    create_job(sessions, resources={"nodes": 2}, **fields)
    with sessions.begin() as session:
        for name in ("worker", "worker-2"):
            workers.register(session, name, "first", "localhost", CPU)
        head, _ = begin(session)
    assert head.rank == 0
    return head


def test_lost_peer_counts_though_others_saved(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin
) -> None:
    """It may lose it each time."""
    part = place_on_two(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside(part=part, timing=Timing(alone=0.1))
    running.wait_for_events(4)
    with sessions.begin() as session:
        leases.free(session, part.job_id, 1, "worker-2")
    running.end()
    job = get_ended(sessions, part.job_id)
    assert (job.status, job.retries) == (JobStatus.QUEUED, 1)
    assert events_of_type(sessions, part.job_id, "retry")[0]["code"] == "worker_lost"
    assert len(states(running.run_dir)) == 1


def test_cancel_waits_for_a_silent_machine(sessions: Sessions, settings: WorkerSettings, begin_beside: Begin) -> None:
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


def test_revoked_attempt_ends_and_writes_nothing(
    sessions: Sessions, settings: WorkerSettings, begin_beside: Begin
) -> None:
    job_id = create_job(sessions, name="steps=1000 sleep=0.05")
    running = begin_beside()
    running.wait_for_events(3)
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 1, replace(settings.retries, most=0))
        before = jobs.get(session, job_id).event_count
    running.end()
    assert running.exit_report.exists()
    job = get_ended(sessions, job_id)
    assert (job.status, job.exit_report, job.event_count) == (JobStatus.FAILED, None, before)
