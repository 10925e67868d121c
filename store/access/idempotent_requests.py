"""Requests that make something, each known by its owner, its route, and its Idempotency-Key or its body: one that is
repeated gets what the first one made."""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import RequestOvertaken, RequestReused
from store.models import Request

KEPT = timedelta(hours=24)
"""A key is known for so long."""

LONGEST = timedelta(minutes=5)
"""A request that has made nothing, and was not renewed for so long, has died with its process."""

_REPEATED_WITHIN = timedelta(minutes=10)
"""One without a key is taken for a repeated one, where it says that it is."""


@dataclass(frozen=True)
class Asked:
    owner: str
    route: str
    key: str | None
    """The Idempotency-Key."""
    body_sha256: str
    """Of the query too."""
    repeated: bool
    """The client says that it has sent this before."""


@dataclass(frozen=True)
class First:
    """It is to be done; `id` names it."""

    id: str


@dataclass(frozen=True)
class Repeated:
    resource: str | None
    """What the first one made; None while that is still at work."""


def begin(session: Session, asked: Asked) -> First | Repeated:
    """Raises RequestReused where the key came with another body."""
    session.execute(delete(Request).where(Request.created_at < func.now() - KEPT))
    dead = (Request.resource.is_(None), Request.created_at < func.now() - LONGEST)
    session.execute(delete(Request).where(Request.owner == asked.owner, Request.route == asked.route, *dead))
    before = _before(session, asked)
    if before is not None:
        return before
    row = {"id": secrets.token_hex(12), "owner": asked.owner, "route": asked.route, "key": asked.key}
    # Of two at once with one key the second waits here until the first one's row is there.
    new = insert(Request).values(**row, body_sha256=asked.body_sha256).on_conflict_do_nothing().returning(Request.id)
    made = session.scalar(new)
    if made is not None:
        return First(made)
    return _before(session, asked) or Repeated(None)


def _before(session: Session, asked: Asked) -> Repeated | None:
    of_owner = (Request.owner == asked.owner, Request.route == asked.route)
    if asked.key is not None:
        found = session.scalar(select(Request).where(*of_owner, Request.key == asked.key))
        if found is not None and found.body_sha256 != asked.body_sha256:
            raise RequestReused(asked.key)
    elif asked.repeated:
        lately = (Request.body_sha256 == asked.body_sha256, Request.created_at > func.now() - _REPEATED_WITHIN)
        found = session.scalar(select(Request).where(*of_owner, *lately).order_by(Request.created_at.desc()).limit(1))
    else:
        found = None
    return None if found is None else Repeated(found.resource)


def renew(session: Session, request_id: str) -> None:
    """It is still at work."""
    session.execute(update(Request).where(Request.id == request_id).values(created_at=func.now()))


def settle(session: Session, request_id: str, resource: str) -> None:
    """In the transaction that makes it, and that is to be rolled back where this raises RequestOvertaken."""
    mine = update(Request).where(Request.id == request_id).values(resource=resource).returning(Request.id)
    if session.scalar(mine) is None:
        raise RequestOvertaken


def give_up(session: Session, request_id: str) -> None:
    """It has made nothing, and may be asked again."""
    session.execute(delete(Request).where(Request.id == request_id, Request.resource.is_(None)))
