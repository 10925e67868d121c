"""Gives devices to waiting jobs and notifies their workers."""

import time

from celery import Celery

from runtime import broker, tracing
from store.scheduling import scheduler
from store.session import Sessions


def dispatch(sessions: Sessions, app: Celery) -> None:
    """Raises kombu.exceptions.OperationalError while the broker is unavailable; reconcilers resend what is lost."""
    began = time.time()
    with sessions.begin() as session:
        placed = scheduler.schedule(session)
    ended = time.time()
    for each in placed:
        its = {"finetuned.job_id": each.job_id, "finetuned.workers": ", ".join(each.workers)}
        tracing.record("schedule", (began, ended), each.traceparent, {**its, "finetuned.attempt": each.attempt})
        for worker in each.workers:
            broker.request_start(app, worker, each.job_id, each.attempt)
