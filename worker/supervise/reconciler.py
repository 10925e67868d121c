"""Keeps the promises that no single attempt can, every second: tells that this worker is there, frees the devices of
attempts that have lost their process, takes jobs from workers that have gone, and gives devices to those that wait."""

import logging
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from contract.machine import Machine
from contract.run_dir import RunDir
from runtime import broker
from store import artifacts
from store.errors import Superseded
from store.jobs import attempts, jobs
from store.models import Lease
from store.scheduling import leases, workers
from store.session import Sessions
from worker.machine import devices
from worker.run_output import read_exit_report, read_log_tail
from worker.scheduling import schedule
from worker.settings import WorkerSettings
from worker.supervise import orphans

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 1.0
_LATER_THAN_A_GUARD = timedelta(seconds=5)


def forget_earlier(session: Session, worker: str) -> None:
    """Before a worker begins. What one of its name began before it is followed by nobody; but a process of this one may
    get the pid of one that did follow it, as in a container that is started again."""
    for lease in leases.begun(session, worker):
        if lease.pid is not None:
            leases.let_go(session, lease.job_id, lease.attempt, worker, lease.pid)


class Keeper:
    def __init__(
        self,
        sessions: Sessions,
        app: Celery,
        settings: WorkerSettings,
        machine: Machine,
        draining: Callable[[], bool],
    ) -> None:
        self._sessions = sessions
        self._app = app
        self._settings = settings
        self._machine = machine
        self._draining = draining
        self._incarnation = secrets.token_hex(8)
        self._registered = False
        self._left = threading.Event()
        # A guard kills first, and leaves an exit report.
        self._strays = orphans.Strays(settings.worker, settings.runs, settings.grace + _LATER_THAN_A_GUARD)
        self._database_answers_since = math.inf
        """On the monotonic clock."""

    def run(self) -> None:
        self.round()
        while not self._left.wait(SECONDS_BETWEEN_ROUNDS):
            self.round()

    def round(self) -> None:
        """Raises nothing: whatever goes wrong, the next round is the remedy."""
        for duty in (self.beat, self.clear, self.take_over, self.schedule, self.repeat):
            try:
                duty()
            except Superseded as error:
                log.error("%s; this one ends", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception as error:
                log.exception("%s: the next round will try again", duty.__name__)
                if isinstance(error, SQLAlchemyError):
                    self._database_answers_since = math.inf

    def beat(self) -> None:
        """Tells that this worker is there, and who else uses its devices."""
        name = self._settings.worker
        with self._sessions.begin() as session:
            leased = {lease.number for lease in workers.leases(session) if lease.worker == name}
        external_processes = devices.external_processes(self._machine, self._is_ours, leased)
        with self._sessions.begin() as session:
            if not self._registered:
                workers.register(session, name, self._incarnation, self._settings.address, self._machine)
            self._registered = workers.beat(session, name, self._incarnation, external_processes, self._draining())
        self._database_answers_since = min(self._database_answers_since, time.monotonic())

    def _is_ours(self, pid: int) -> bool:
        marks = orphans.marks_of(pid)
        return marks is not None and marks[0] == self._settings.worker and marks[1].is_relative_to(self._settings.runs)

    def clear(self) -> None:
        """Ends what is left of attempts that nobody follows, and then frees their devices and tells of their end."""
        self._kill_overdue()
        # Before the look at the processes: it finds whatever the dead have started.
        unfollowed = [lease for lease in self._begun() if not self._lives(lease.pid)]
        left = self._strays.clear(time.monotonic(), self._followed)
        for lease in unfollowed:
            if self._run(lease) not in left:
                self._end(lease)

    def _kill_overdue(self) -> None:
        """A process that does not renew its job's lease, and lives, hangs."""
        if not self._all_can_be_heard():
            return
        with self._sessions.begin() as session:
            overdue = jobs.overdue(session, self._settings.worker, self._settings.grace)
        for lease in self._begun():
            if lease.job_id in overdue and lease.pid is not None and self._lives(lease.pid):
                log.error("job %s: its process %s has not been heard of; it is killed", lease.job_id, lease.pid)
                os.kill(lease.pid, signal.SIGKILL)

    def _followed(self) -> set[Path]:
        return {self._run(lease) for lease in self._begun() if self._lives(lease.pid)}

    def _begun(self) -> list[Lease]:
        with self._sessions.begin() as session:
            return leases.begun(session, self._settings.worker)

    def _run(self, lease: Lease) -> Path:
        return self._settings.runs / artifacts.run_path(lease.job_id, lease.attempt)

    def _left_of(self, job_id: str, attempt: int) -> attempts.Left:
        run = RunDir(self._settings.runs / artifacts.run_path(job_id, attempt))
        exit_report = read_exit_report(run.exit_report)
        return attempts.Left(read_log_tail(run.log), exit_report.model_dump(mode="json") if exit_report else None)

    def _lives(self, pid: int | None) -> bool:
        """Whether the process of this worker that follows an attempt is there."""
        return pid is not None and orphans.parent(pid) == os.getpid()

    def _end(self, lease: Lease) -> None:
        with self._sessions.begin() as session:
            status = None
            if lease.rank == 0:
                left = self._left_of(lease.job_id, lease.attempt)
                status = attempts.lost(session, lease.job_id, lease.attempt, self._settings.retries, left)
            leases.free(session, lease.job_id, lease.attempt, self._settings.worker)
        if status is not None:
            log.warning("job %s lost the process that ran attempt %s: %s", lease.job_id, lease.attempt, status)

    def take_over(self) -> None:
        """Takes the jobs of workers that are no longer heard of."""
        if not self._all_can_be_heard():
            return
        settings = self._settings
        with self._sessions.begin() as session:
            for job, status in attempts.lost_with_machine(session, settings.unseen, settings.retries, self._left_of):
                log.warning("job %s lost its worker %s in attempt %s: %s", job.id, job.worker, job.attempt, status)

    def _all_can_be_heard(self) -> bool:
        """While the database was away no worker was heard. Each has the time of a lease to come back."""
        return time.monotonic() - self._database_answers_since >= self._settings.lease.total_seconds()

    def schedule(self) -> None:
        schedule(self._sessions, self._app)

    def repeat(self) -> None:
        """Tells this worker again what it is to begin: its message may have been lost. One too many does no harm."""
        with self._sessions.begin() as session:
            unbegun = leases.unbegun(session, self._settings.worker)
        for job_id, attempt in unbegun:
            broker.begin(self._app, self._settings.worker, job_id, attempt)

    def leave(self) -> None:
        """At the end of a worker that was told to stop. No round follows, which would list it again."""
        self._left.set()
        with self._sessions.begin() as session:
            workers.leave(session, self._settings.worker, self._incarnation)
