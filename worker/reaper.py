"""Looks, every few seconds, for what a dead worker or a forgetful broker has left: no job is lost to either."""

import logging
import time

from celery import Celery
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy.exc import OperationalError as DatabaseAway

from store import jobs
from store.broker import waiting_wakes, wake
from store.session import Sessions, make_engine, make_sessions
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 2


def run(settings: WorkerSettings, broker: Celery) -> None:
    sessions = make_sessions(make_engine(settings))
    while True:
        try:
            release(sessions, settings.max_attempts)
            wake_for_queued(sessions, broker)
        except (DatabaseAway, BrokerAway) as error:
            log.warning("the reaper tries again in %s s: %s", SECONDS_BETWEEN_ROUNDS, error)
        time.sleep(SECONDS_BETWEEN_ROUNDS)


def release(sessions: Sessions, max_attempts: int) -> None:
    """Takes the jobs from workers that have let their lease pass."""
    with sessions.begin() as session:
        for job in jobs.release_expired(session, max_attempts):
            log.warning("job %s lost its worker %s in attempt %s; now %s", job.id, job.worker, job.attempt, job.status)


def wake_for_queued(sessions: Sessions, broker: Celery) -> None:
    """Sends a wake-up for every job that waits and has none. One too many does no harm: it finds no job."""
    with sessions.begin() as session:
        queued = jobs.queued_ids(session)
    for job_id in queued[: max(0, len(queued) - waiting_wakes(broker))]:
        wake(broker, job_id)
