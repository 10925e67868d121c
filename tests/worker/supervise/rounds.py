"""Rounds of a reconciler. The test's process is the worker's, and its children are the pool's."""

import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from celery import Celery
from kombu.simple import SimpleQueue

from contract.status import JobStatus
from runtime.broker import worker_queue
from store.jobs import jobs, transitions
from store.models import Worker
from store.scheduling import leases, workers
from store.scheduling.leases import Placement
from store.scheduling.situation import DeviceRef
from store.session import Sessions
from tests.support.jobs import cpu, make_recipe
from tests.support.waiting import until
from worker.settings import WorkerSettings
from worker.supervise.reconciler import Reconciler

MACHINE = cpu(2)


NEVER = timedelta(hours=1)


def received(app: Celery) -> list[tuple[str, int]]:
    """The attempts that the worker was requested to begin since the last call."""
    reported: list[tuple[str, int]] = []
    with app.connection_for_read() as connection, SimpleQueue(connection, worker_queue("host-1")) as queue:
        while True:
            try:
                message = queue.get(block=False)
            except queue.Empty:
                return reported
            message.ack()
            (job_id, attempt), _, _ = message.payload
            reported.append((job_id, attempt))


Start = Callable[..., "subprocess.Popen[bytes]"]


def make_reconciler(
    sessions: Sessions, app: Celery, settings: WorkerSettings, draining: Callable[[], bool] = lambda: False
) -> Reconciler:
    return Reconciler(sessions, app, settings, MACHINE, draining)


def run_on(sessions: Sessions, worker: str, pid: int, lease: timedelta, **recipe: Any) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(**recipe)).id
        workers.register(session, worker, "another", "localhost", MACHINE)
        leases.place(session, [Placement(job_id, 1, [DeviceRef(worker, 0)], shared=False)])
        assert transitions.begin(session, job_id, 1, worker, pid, lease) is not None
    return job_id


def run_here(sessions: Sessions, pid: int, lease: timedelta = NEVER) -> str:
    """A job that a process of the pool follows."""
    return run_on(sessions, "host-1", pid, lease)


def run_on_a_silent_worker(sessions: Sessions, name: str = "silent", **recipe: Any) -> str:
    job_id = run_on(sessions, name, 1, lease=timedelta(seconds=-1), **recipe)
    with sessions.begin() as session:
        session.execute(sa.update(Worker).where(Worker.name == name).values(seen_at=sa.func.now() - NEVER / 2))
    return job_id


def status(sessions: Sessions, job_id: str) -> JobStatus:
    with sessions.begin() as session:
        return jobs.get(session, job_id).status


def leased(sessions: Sessions, job_id: str) -> bool:
    """Whether the first attempt at a job has devices."""
    with sessions.begin() as session:
        return leases.machines(session, job_id, 1) != set()


def rounds_until(reconciler: Reconciler, condition: Callable[[], bool]) -> None:
    def after_one_more() -> bool:
        reconciler.round()
        return condition()

    until(after_one_more)
