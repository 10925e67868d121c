"""The Celery worker: its two tasks, and what it does when it starts and stops."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

import structlog
from celery import Celery, signals
from sqlalchemy.orm import Session

from contract.machine import Machine
from runtime import tracing
from runtime.broker import RUN_JOB, SCHEDULE, make_celery, make_publisher
from runtime.processes import end_with_parent
from store.jobs import transitions
from store.scheduling import leases
from store.session import Sessions, make_engine, make_sessions
from worker.attempt import follower, lifecycle
from worker.attempt.context import Attempt
from worker.dispatch import dispatch
from worker.launchers.profiles import offering
from worker.machine import cuda
from worker.machine.inventory import detect
from worker.settings import WorkerSettings
from worker.supervise.inference import InferenceServers
from worker.supervise.publishing import PublishingProcess
from worker.supervise.reconciler import Reconciler
from worker.transaction import JobGivenUp, Patience, run_transaction

T = TypeVar("T")

log = logging.getLogger(__name__)

_SERVICE = "finetuned-worker"
"""The service of its spans."""


class CeleryWorker:
    """A worker: its main process, and the pool of processes forked from it, each of which runs one job at a time."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.app: Celery = make_celery(settings, settings.worker)
        self.machine = _detect(settings)
        self._settings = settings
        self._pid = os.getpid()
        self._publishing = PublishingProcess()
        # Without a lock: a process of the pool that is killed while it holds one would hold it for ever.
        self._stopping = multiprocessing.get_context("fork").RawValue("b", 0)
        self.app.task(name=SCHEDULE)(self.dispatch)
        self.app.task(name=RUN_JOB)(self.run_job)

    def connect_signals(self) -> None:
        """Has Celery call this worker. Once per process: Celery's signals are global."""
        # A receiver keeps Celery from setting up a log of its own, and from taking stdout.
        signals.setup_logging.connect(_keep_logging, weak=False)
        signals.worker_process_init.connect(self.bind_to_worker, weak=False)
        signals.worker_ready.connect(self._start_threads, weak=False)
        signals.worker_shutting_down.connect(self._drain, weak=False)
        signals.worker_shutdown.connect(self._leave, weak=False)
        signals.worker_process_shutdown.connect(_send_spans, weak=False)

    @cached_property
    def _sessions(self) -> Sessions:
        """Made in each process of the pool: a connection must not be shared across a fork."""
        return make_sessions(make_engine(self._settings))

    @cached_property
    def _reconciler(self) -> Reconciler:
        # An impatient publisher: a broker that is unavailable must not keep it from sending heartbeats.
        publisher = make_publisher(self._settings)
        sessions = make_sessions(make_engine(self._settings))
        settings, machine = self._settings, self.machine
        return Reconciler(sessions, publisher, settings, machine, self._is_draining, self._servers.followed)

    @cached_property
    def _servers(self) -> InferenceServers:
        sessions = make_sessions(make_engine(self._settings))
        return InferenceServers(sessions, self._settings, self.machine, self._is_draining)

    @cached_property
    def _patience(self) -> Patience:
        return Patience(self._is_draining)

    def _is_draining(self) -> bool:
        return bool(self._stopping.value)

    def dispatch(self) -> None:
        """Task: a job waits."""
        dispatch(self._sessions, self.app)

    def run_job(self, job_id: str, number: int) -> None:
        """Task: an attempt was given devices of this machine. Runs it, or this machine's part of it."""
        with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=number):
            try:
                self._run_job(job_id, number)
            except JobGivenUp as error:
                log.warning("%s; the job will be taken over as that of a lost worker", error)

    def _transact(self, job_id: str, work: Callable[[Session], T]) -> T:
        return run_transaction(self._sessions, f"job {job_id}", work, self._patience)

    def _run_job(self, job_id: str, number: int) -> None:
        settings, sessions = self._settings, self._sessions
        if self._is_draining():
            self._transact(job_id, lambda session: leases.revoke(session, job_id))
            return
        me = (settings.worker, os.getpid())
        began = time.time()
        part = self._transact(job_id, lambda session: transitions.begin(session, job_id, number, *me, settings.lease))
        if part is None:
            # Another process has it, or the connection broke after this one had begun it: nobody follows it then.
            self._transact(job_id, lambda session: leases.release(session, job_id, number, *me))
            return
        log.info("begun as machine %s of the attempt, with devices %s", part.rank, part.devices)
        attempt = Attempt(sessions, settings, self.machine, part, self._is_draining)
        tracing.record("claim", (began, time.time()), part.traceparent, attempt.trace_attributes)
        try:
            if part.rank == 0:
                lifecycle.run(attempt)
            else:
                follower.run(attempt)
        finally:
            attempt.transact(lambda session: leases.release(session, job_id, number, *me))
        if not self._is_draining():
            self.dispatch()

    def bind_to_worker(self, **_: Any) -> None:
        """Ends this process of the pool with the worker's main process: its job will be given to another."""
        if not end_with_parent(self._pid, signal.SIGKILL):
            os.kill(os.getpid(), signal.SIGKILL)
        tracing.start(_SERVICE)

    def _start_threads(self, **_: Any) -> None:
        tracing.start(_SERVICE)
        threading.Thread(target=self._reconciler.run, name="reconciler", daemon=True).start()
        threading.Thread(target=self._servers.run, name="inference", daemon=True).start()
        threading.Thread(target=self._publishing.run, name="publishing", daemon=True).start()

    def _drain(self, **_: Any) -> None:
        self._stopping.value = 1

    def _leave(self, **_: Any) -> None:
        self._publishing.stop()
        self._servers.wait_until_ended()
        self._reconciler.leave()
        tracing.stop()


def _detect(settings: WorkerSettings) -> Machine:
    machine = detect(os.environ, settings.slots)
    if settings.profiles:
        return offering(machine, settings.profiles)
    # A trainer of the operator's own may have another torch, or none.
    reason = cuda.unusable_reason() if machine.gpus and settings.trainer is None else None
    if reason is not None:
        log.error("no job gets a GPU of this machine: %s", reason)
    return machine.model_copy(update={"unusable": reason})


def _send_spans(**_: Any) -> None:
    tracing.stop()


def _keep_logging(**_: Any) -> None:
    pass
