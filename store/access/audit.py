"""Who did what. An entry is written with what it tells of, in one transaction."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.access.principal import Principal
from store.models import AuditEntry


def record(session: Session, who: Principal, action: str, target: str | None = None, **data: Any) -> None:
    """`action` is a noun and a verb, such as "job.cancel"; `data` holds no secret."""
    session.add(
        AuditEntry(
            owner=who.owner,
            key_id=who.key_id,
            action=action,
            target=target,
            request_id=who.request_id,
            data=data or None,
        )
    )


def newest(session: Session, limit: int, after: int | None, owner: str | None) -> list[AuditEntry]:
    """Newest first, of `owner` where it is given; `after` is the last seq of the page before."""
    query = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(limit)
    if owner is not None:
        query = query.where(AuditEntry.owner == owner)
    if after is not None:
        query = query.where(AuditEntry.seq < after)
    return list(session.scalars(query))
