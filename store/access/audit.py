"""The audit log. An entry is written in the same transaction as the change it records."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from store.access.principal import Principal
from store.models import AuditEntry


def record(session: Session, who: Principal, action: str, target: str | None = None, **data: Any) -> None:
    """Adds an entry. `action` is a noun and a verb, such as "job.cancel"; `data` must hold no secret."""
    entry = {"action": action, "target": target, "data": data or None}
    by = {"owner": who.owner, "key_id": who.key_id, "request_id": who.request_id}
    session.connection().execute(_RECORD, entry | by)  # through the session it takes twice as long


_RECORD = insert(AuditEntry)
"""Without an object of the entry, whose seq would be read back."""


@dataclass(frozen=True)
class Chosen:
    """Entries of an owner, an action and an object; None for any."""

    owner: str | None = None
    action: str | None = None
    target: str | None = None


def list_entries(session: Session, limit: int, after: int | None, chosen: Chosen) -> list[AuditEntry]:
    """One page of the chosen entries, newest first; `after` is the last seq of the page before."""
    query = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(limit)
    columns = ((AuditEntry.owner, chosen.owner), (AuditEntry.action, chosen.action), (AuditEntry.target, chosen.target))
    for column, value in columns:
        if value is not None:
            query = query.where(column == value)
    if after is not None:
        query = query.where(AuditEntry.seq < after)
    return list(session.scalars(query))
