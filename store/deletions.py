"""Deletes the bytes of what was deleted in the database.

The transaction that deletes the rows records the paths, and a worker then deletes the bytes. So no row ever names
bytes that are gone, and no bytes are forgotten when a process dies in between.
"""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from storage.backends import Storage
from store.models import Deletion
from store.session import Sessions

_IN_HAND = timedelta(minutes=10)
"""How long other workers leave alone what one deletes; then that one is taken for dead."""

_AGAIN = timedelta(days=1)
"""When a path is deleted a second time: an upload that had begun before may have added files meanwhile."""


def add(session: Session, paths: Iterable[str]) -> None:
    """Records paths below the runs folder, whose bytes a worker deletes once the transaction is committed."""
    rows = [{"path": path} for path in paths]
    if rows:
        session.execute(insert(Deletion).values(rows).on_conflict_do_nothing())


def delete_next(sessions: Sessions, storages: Iterable[Storage]) -> str | None:
    """Deletes the bytes of the next path from all of the storages, and returns the path; None if nothing is due. Raises
    OSError, StorageUnavailable; another try follows later."""
    with sessions.begin() as session:
        path = _claim(session)
    if path is None:
        return None
    for storage in storages:
        storage.delete_tree(f"runs/{path}")
    with sessions.begin() as session:
        _finish(session, path)
    return path


def _claim(session: Session) -> str | None:
    due = select(Deletion.path).where(Deletion.due_at <= func.now()).order_by(Deletion.due_at).limit(1)
    chosen = session.scalar(due.with_for_update(skip_locked=True))
    session.execute(update(Deletion).where(Deletion.path == chosen).values(due_at=func.now() + _IN_HAND))
    return chosen


def _finish(session: Session, path: str) -> None:
    again = Deletion.created_at + _AGAIN
    session.execute(delete(Deletion).where(Deletion.path == path, again <= func.now()))
    session.execute(update(Deletion).where(Deletion.path == path).values(due_at=again))
