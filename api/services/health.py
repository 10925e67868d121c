"""Whether the service can take jobs."""

import logging

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.errors import NotReady
from api.schemas.health import Health
from runtime import broker
from store.scheduling import workers
from store.session import Sessions

log = logging.getLogger(__name__)


def health(sessions: Sessions) -> Health:
    """Answers when the service can take jobs: its database does."""
    with sessions.begin() as session:
        session.execute(text("SELECT 1"))
    return Health(status="ok")


def ready(sessions: Sessions, publisher: Celery) -> Health:
    """Answers when jobs would run. Raises NotReady."""
    missing = []
    try:
        with sessions.begin() as session:
            if not workers.heard(session) - workers.draining(session):
                missing.append("worker: none is there that takes jobs")
    except SQLAlchemyError as error:
        log.warning("not ready, the database is away: %s", error)
        missing.append("database: it does not answer")
    try:
        broker.ping(publisher)
    except OperationalError as error:
        log.warning("not ready, the broker is away: %s", error)
        missing.append("broker: it does not answer")
    if missing:
        raise NotReady("; ".join(missing))
    return Health(status="ok")
