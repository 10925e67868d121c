"""Gives devices to waiting jobs and notifies their workers."""

from celery import Celery

from runtime import broker
from store.scheduling import scheduler
from store.session import Sessions


def dispatch(sessions: Sessions, app: Celery) -> None:
    """Raises kombu.exceptions.OperationalError while the broker is unavailable; reconcilers resend what is lost."""
    with sessions.begin() as session:
        placed = scheduler.schedule(session)
    for each in placed:
        for worker in each.workers:
            broker.request_start(app, worker, each.job_id, each.attempt)
