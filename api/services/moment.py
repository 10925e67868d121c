"""Reads that belong together."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from store.session import Sessions


@contextmanager
def one_moment(sessions: Sessions) -> Iterator[Session]:
    """Reads all rows as they were when it read the first: else a job that ends meanwhile still waits, and for nothing
    that is so."""
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session
