"""Transactions that must happen, however long the database is unavailable, unless the worker is to stop."""

import math
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from runtime.retry import until_available
from store.session import Sessions

T = TypeVar("T")

LONGEST_WAIT_TO_STOP = 5.0
"""Seconds for which a worker that is to stop waits for an unavailable database. Both may be stopping with their
machine, and the worker would be killed while it waits."""


class JobGivenUp(Exception):
    """The worker is to stop and cannot record how a job ended. It will be taken over as that of a lost worker."""


class Patience:
    """How long a process of the worker waits for the database."""

    def __init__(self, draining: Callable[[], bool]) -> None:
        self._draining = draining
        self._unavailable_since = math.inf

    def failed(self) -> bool:
        """Call it when the database is unavailable. Returns whether to give it up."""
        self._unavailable_since = min(self._unavailable_since, time.monotonic())
        return self._draining() and time.monotonic() - self._unavailable_since >= LONGEST_WAIT_TO_STOP

    def succeeded(self) -> None:
        self._unavailable_since = math.inf


def run_transaction(sessions: Sessions, what: str, work: Callable[[Session], T], patience: Patience | None = None) -> T:
    """Runs `work` in one transaction, and again while the database is unavailable. The log names the work as `what`.
    Raises JobGivenUp when `patience` is over; without one it never is."""

    def run() -> T:
        try:
            with sessions.begin() as session:
                result = work(session)
        except OperationalError as error:
            if patience is not None and patience.failed():
                raise JobGivenUp(f"{what}: the database is unavailable and the worker is to stop") from error
            raise
        if patience is not None:
            patience.succeeded()
        return result

    return until_available(what, OperationalError)(run)
