"""What each round does about attempts whose process, or whose worker, is gone."""

import json
import signal
from datetime import timedelta

from celery import Celery

from contract.run_dir import RunDir
from contract.status import JobStatus
from store import artifacts
from store.jobs import jobs
from store.scheduling import leases
from store.session import Sessions
from tests.support.processes import is_gone
from tests.support.waiting import until
from tests.worker.supervise.rounds import (
    NEVER,
    Start,
    leased,
    make_reconciler,
    run_here,
    run_on_a_silent_worker,
    status,
)
from worker.launchers.cluster_node import STOP
from worker.settings import WorkerSettings
from worker.supervise.reconciler import release_earlier


def test_attempt_whose_process_lives_is_left_alone(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    job_id = run_here(sessions, start().pid)
    trainer = start(of_job=job_id)
    for _ in range(2):
        make_reconciler(sessions, broker, settings).round()
    assert status(sessions, job_id) is JobStatus.RUNNING
    assert not is_gone(trainer.pid)


def test_attempt_without_a_process_is_retried(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    job_id = run_here(sessions, pool.pid)
    pool.kill()
    until(lambda: is_gone(pool.pid))  # and nobody has taken note of it
    make_reconciler(sessions, broker, settings).round()
    assert status(sessions, job_id) is JobStatus.QUEUED
    assert not leased(sessions, job_id)


def test_job_keeps_what_the_attempt_has_left(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    here, elsewhere = run_here(sessions, pool.pid), run_on_a_silent_worker(sessions)
    exit_report = {
        "stop_requested": None,
        "ended": 2.0,
        "seconds": 1.0,
        "processes": [{"pid": 7, "name": "rank", "killed": False}],
    }
    for job_id in (here, elsewhere):
        run = RunDir(settings.runs / artifacts.run_path(job_id, 1))
        run.path.mkdir(parents=True)
        run.log.write_text("the end of the log")
        run.exit_report.write_text(json.dumps(exit_report))
    pool.kill()
    pool.wait()
    make_reconciler(sessions, broker, settings).round()
    for job_id in (here, elsewhere):
        with sessions.begin() as session:
            job = jobs.get(session, job_id)
            assert (job.status, job.log_tail) == (JobStatus.QUEUED, "the end of the log")
            assert job.exit_report is not None
            assert job.exit_report["processes"] == exit_report["processes"]


def test_slurm_job_of_a_lost_worker_is_told_to_stop(
    sessions: Sessions, broker: Celery, settings: WorkerSettings
) -> None:
    in_cluster = run_on_a_silent_worker(sessions, "login", resources={"profile": "a"})
    local = run_on_a_silent_worker(sessions)
    runs = {job_id: settings.runs / artifacts.run_path(job_id, 1) for job_id in (in_cluster, local)}
    for run in runs.values():
        run.mkdir(parents=True)
    make_reconciler(sessions, broker, settings).round()
    assert (runs[in_cluster] / STOP).exists()
    assert not (runs[local] / STOP).exists()


def test_attempt_released_without_an_end_is_lost(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    job_id = run_here(sessions, pool.pid)
    with sessions.begin() as session:
        leases.release(session, job_id, 1, "host-1", pool.pid)
    make_reconciler(sessions, broker, settings).round()
    assert status(sessions, job_id) is JobStatus.QUEUED


def test_reused_pid_follows_no_earlier_attempt(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    job_id = run_here(sessions, pool.pid)
    with sessions.begin() as session:
        release_earlier(session, "host-1")
    make_reconciler(sessions, broker, settings).round()
    assert status(sessions, job_id) is JobStatus.QUEUED
    assert not is_gone(pool.pid)


def test_its_devices_stay_leased_while_its_trainer_ends(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    job_id = run_here(sessions, pool.pid)
    trainer = start(of_job=job_id)
    trainer.send_signal(signal.SIGSTOP)  # so that it takes its time
    pool.kill()
    pool.wait()
    reconciler = make_reconciler(sessions, broker, settings)
    for _ in range(2):
        reconciler.round()
        assert status(sessions, job_id) is JobStatus.RUNNING
        assert leased(sessions, job_id)
    trainer.send_signal(signal.SIGCONT)
    assert trainer.wait(20) == -signal.SIGTERM
    reconciler.round()
    assert status(sessions, job_id) is JobStatus.QUEUED
    assert not leased(sessions, job_id)


def test_hanging_process_is_killed_and_retried(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    pool = start()
    job_id = run_here(sessions, pool.pid, lease=timedelta(seconds=-1))
    for has_more in ({"grace": NEVER}, {"lease": NEVER}):  # time to come back
        make_reconciler(sessions, broker, settings.model_copy(update=has_more)).round()
        assert not is_gone(pool.pid)
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    assert pool.wait(20) == -signal.SIGKILL
    reconciler.round()
    assert status(sessions, job_id) is JobStatus.QUEUED


def test_job_of_a_silent_worker_is_taken(sessions: Sessions, broker: Celery, settings: WorkerSettings) -> None:
    job_id = run_on_a_silent_worker(sessions)
    make_reconciler(sessions, broker, settings).round()
    assert status(sessions, job_id) is JobStatus.QUEUED
