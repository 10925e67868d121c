"""What must be told is told, however long the database is away."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.session import Sessions

log = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS_BETWEEN_TRIES = 1.0


def persist(sessions: Sessions, what: str, work: Callable[[Session], T]) -> T:
    """Does `work` in one transaction, again and again while the database does not answer. `what` is for the log."""
    while True:
        try:
            with sessions.begin() as session:
                return work(session)
        except OperationalError as error:
            log.warning("%s waits, the database is away: %s", what, error)
            time.sleep(SECONDS_BETWEEN_TRIES)
