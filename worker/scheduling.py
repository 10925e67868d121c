"""Gives devices to waiting jobs, and tells the workers that have them."""

from celery import Celery

from runtime import broker
from store import scheduler as store
from store.session import Sessions


def schedule(sessions: Sessions, app: Celery) -> None:
    """Raises kombu.exceptions.OperationalError when the broker is away; each worker then tells itself later."""
    with sessions.begin() as session:
        placed = store.schedule(session)
    for each in placed:
        for worker in each.workers:
            broker.begin(app, worker, each.job_id, each.attempt)
