"""Tells every few seconds that this worker is there, and looks for what a dead one or a forgetful broker has left: no
job is lost to either."""

import logging
import math
import os
import socket
import time

from celery import Celery
from sqlalchemy import text

from contract.machine import Machine
from store import jobs, workers
from store.broker import waiting_wakes, wake
from store.session import Sessions, make_engine, make_sessions
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 2


def run(settings: WorkerSettings, broker: Celery, machine: Machine) -> None:
    reaper = Reaper(make_sessions(make_engine(settings)), broker, settings, machine)
    while True:
        reaper.round()
        time.sleep(SECONDS_BETWEEN_ROUNDS)


class Reaper:
    def __init__(self, sessions: Sessions, broker: Celery, settings: WorkerSettings, machine: Machine) -> None:
        self._sessions = sessions
        self._broker = broker
        self._settings = settings
        self._machine = machine
        self._database_answers_since = math.inf
        """On the monotonic clock."""

    def round(self) -> None:
        """Raises nothing: whatever goes wrong, the next round is the remedy."""
        try:
            self.beat()
        except Exception:
            log.exception("cannot tell that this worker is there; the next round will")
        try:
            self.release()
        except Exception:
            log.exception("cannot look for jobs that have lost their worker; the next round will")
            self._database_answers_since = math.inf
        try:
            self.wake()
        except Exception:
            log.exception("cannot look for jobs that have lost their wake-up; the next round will")

    def beat(self) -> None:
        with self._sessions.begin() as session:
            workers.beat(session, f"{socket.gethostname()}:{os.getpid()}", self._machine)

    def release(self) -> None:
        """Takes the jobs from workers that have let their lease pass.

        While the database was away no worker could renew a lease. Each has the time of one to come back.
        """
        with self._sessions.begin() as session:
            session.execute(text("SELECT 1"))
            now = time.monotonic()
            self._database_answers_since = min(self._database_answers_since, now)
            if now - self._database_answers_since < self._settings.lease.total_seconds():
                return
            for job in jobs.release_expired(session, self._settings.max_losses):
                log.warning("job %s lost its worker %s in attempt %s: %s", job.id, job.worker, job.attempt, job.status)

    def wake(self) -> None:
        """Sends a wake-up for every job that waits and has none. One too many does no harm: it finds no job."""
        with self._sessions.begin() as session:
            queued = jobs.queued_ids(session)
        for job_id in queued[: max(0, len(queued) - waiting_wakes(self._broker))]:
            wake(self._broker, job_id)
