"""The Celery worker: its one task, and what it does at its own start and end."""

import functools
import multiprocessing
import os
import signal
import socket
import threading
from typing import Any

from celery.signals import worker_process_init, worker_ready, worker_shutting_down

from store import jobs
from store.broker import RUN_JOB, make_celery
from store.session import Sessions, make_engine, make_sessions
from store.settings import read_settings
from worker import attempt, reaper
from worker.guard import PR_SET_PDEATHSIG, prctl
from worker.machine import detect
from worker.settings import WorkerSettings

settings = read_settings(WorkerSettings)
app = make_celery(settings)
machine = detect(os.environ)

_draining = multiprocessing.get_context("fork").Event()
"""Shared with the pool's processes, which are forked from this one."""


@functools.cache
def _sessions() -> Sessions:
    """Made in the pool's process: a connection must not be shared across a fork."""
    return make_sessions(make_engine(settings))


@app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """A job waits. Claims the one that has waited longest, which need not be the one that woke us, and runs it."""
    if _draining.is_set():
        return
    with _sessions().begin() as session:
        job = jobs.claim(session, f"{socket.gethostname()}:{os.getpid()}", settings.lease)
    if job is not None:
        claimed = attempt.Attempt(job.id, job.attempt, job.recipe)
        attempt.run(_sessions(), settings, machine, claimed, _draining.is_set)


@worker_process_init.connect
def _die_with_worker(**_: Any) -> None:
    # A killed worker leaves its pool's processes behind, each with a job that the reaper gives to another.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@worker_ready.connect
def _start_reaper(**_: Any) -> None:
    threading.Thread(target=reaper.run, args=(settings, app, machine), name="reaper", daemon=True).start()


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _draining.set()
