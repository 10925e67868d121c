"""Transactions that must happen, however long the database is unavailable."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from runtime.retry import until_available
from store.session import Sessions

T = TypeVar("T")


def run_transaction(sessions: Sessions, what: str, work: Callable[[Session], T]) -> T:
    """Runs `work` in one transaction, and again while the database is unavailable. The log names the work as `what`."""

    def run() -> T:
        with sessions.begin() as session:
            return work(session)

    return until_available(what, OperationalError)(run)
