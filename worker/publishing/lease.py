"""Keeps a lease while work is done that takes long."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from store.session import Sessions

log = logging.getLogger(__name__)

_HEARTBEAT = 1.0
"""Seconds between two renewals."""


@contextmanager
def leased(sessions: Sessions, name: str, renew: Callable[[Session], bool]) -> Iterator[Callable[[], bool]]:
    """Calls `renew` in a thread, until it says that the lease is lost. Yields whether it is."""
    done, lost = threading.Event(), threading.Event()

    def run() -> None:
        while not done.wait(_HEARTBEAT):
            try:
                with sessions.begin() as session:
                    if not renew(session):
                        lost.set()
                        return
            except OperationalError as error:
                log.warning("%s: the database is unavailable: %s", name, error)

    thread = threading.Thread(target=run, name=f"lease of {name}", daemon=True)
    thread.start()
    try:
        yield lost.is_set
    finally:
        done.set()
        thread.join()
