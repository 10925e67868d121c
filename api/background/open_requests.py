"""Renews the requests in progress, so that one that reads or copies for long does not count as dead, and forgets those
that are too old to be repeated. Also deletes the sign-ins that have
ended, and the notes of jobs that were deleted."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from store.access import idempotent_requests, sign_ins
from store.jobs import deletion
from store.session import Sessions

log = logging.getLogger(__name__)

_SECONDS = idempotent_requests.LONGEST.total_seconds() / 5


class OpenRequests:
    """Those of this process."""

    def __init__(self, sessions: Sessions, seconds: float = _SECONDS) -> None:
        self._sessions = sessions
        self._seconds = seconds
        self._ids: set[str] = set()

    @contextmanager
    def open(self, request_id: str) -> Iterator[None]:
        self._ids.add(request_id)
        try:
            yield
        finally:
            self._ids.discard(request_id)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await anyio.sleep(self._seconds)
            await to_thread.run_sync(self._renew)

    def _renew(self) -> None:
        try:
            with self._sessions.begin() as session:
                for request_id in self._ids.copy():
                    idempotent_requests.renew(session, request_id)
                idempotent_requests.forget(session)
                sign_ins.forget(session)
                deletion.forget(session)
        except SQLAlchemyError as error:
            log.warning("requests in progress may count as dead: %s", error)
