"""The Celery worker: its two tasks, and what it does at its own start and end."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
from typing import Any

import structlog
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutdown, worker_shutting_down

from runtime.broker import LOOK, RUN_JOB, make_celery, make_publisher
from runtime.settings import read_settings
from store.jobs import jobs
from store.scheduling import leases
from store.session import Sessions, make_engine, make_sessions
from worker.attempt import follower, lifecycle
from worker.machine.inventory import detect
from worker.publishing.daemon import Clerk
from worker.retry import persist
from worker.scheduling import schedule
from worker.settings import WorkerSettings
from worker.supervise.guard import PR_SET_PDEATHSIG, prctl
from worker.supervise.reconciler import Keeper

log = logging.getLogger(__name__)

settings = read_settings(WorkerSettings)
app = make_celery(settings, settings.worker)
_WORKER = os.getpid()
"""The pool's processes, which are forked from this one, are its children."""
machine = detect(os.environ, settings.slots)

_clerk = Clerk()
_told_to_stop = multiprocessing.get_context("fork").RawValue("b", 0)
"""Shared with the pool's processes, which are forked from this one. Without a lock: one of them that is killed while it
holds a lock holds it for ever."""


def _draining() -> bool:
    return bool(_told_to_stop.value)


@functools.cache
def _sessions() -> Sessions:
    """Made in each process that asks: a connection must not be shared across a fork."""
    return make_sessions(make_engine(settings))


@functools.cache
def _keeper() -> Keeper:
    # An impatient publisher: a broker that is away must not keep it from beating.
    publisher = make_publisher(settings)
    return Keeper(make_sessions(make_engine(settings)), publisher, settings, machine, _draining)


@app.task(name=LOOK)
def look() -> None:
    """A job waits."""
    schedule(_sessions(), app)


@app.task(name=RUN_JOB)
def run_job(job_id: str, number: int) -> None:
    """Devices of this machine were given to an attempt: begins it, or this machine's part of it."""
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=number):
        _run_job(job_id, number)


def _run_job(job_id: str, number: int) -> None:
    what = f"job {job_id}"
    if _draining():
        persist(_sessions(), what, lambda session: leases.take_back(session, job_id))
        return
    me = (settings.worker, os.getpid())
    part = persist(_sessions(), what, lambda session: jobs.begin(session, job_id, number, *me, settings.lease))
    if part is None:
        # It may be this process's own, where the database broke off when it had written that.
        persist(_sessions(), what, lambda session: leases.let_go(session, job_id, number, *me))
        return
    log.info("begun as machine %s of the attempt, with devices %s", part.rank, part.devices)
    mine = lifecycle.Attempt(_sessions(), settings, machine, part, _draining)
    try:
        if part.rank == 0:
            lifecycle.run(mine)
        else:
            follower.run(mine)
    finally:
        mine.persist(lambda session: leases.let_go(session, job_id, number, *me))
    if not _draining():
        schedule(_sessions(), app)


@setup_logging.connect
def _log(**_: Any) -> None:
    """That something listens keeps Celery from setting up a log of its own, and from taking stdout."""


@worker_process_init.connect
def _die_with_worker(**_: Any) -> None:
    # A killed worker leaves its pool's processes behind, each with a job that is given to another.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _WORKER:
        os.kill(os.getpid(), signal.SIGKILL)  # it died before we could ask to be told


@worker_ready.connect
def _keep(**_: Any) -> None:
    threading.Thread(target=_keeper().run, name="keeper", daemon=True).start()
    threading.Thread(target=_clerk.keep, name="clerk", daemon=True).start()


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _told_to_stop.value = 1


@worker_shutdown.connect
def _leave(**_: Any) -> None:
    _clerk.stop()
    _keeper().leave()
