"""Requests that create something, each known by its owner, its route, and its Idempotency-Key or its body. A repeated
one gets what the first one made."""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import RequestOvertaken, RequestReused
from store.models import Request

KEPT = timedelta(hours=24)
"""How long a key is remembered."""

LONGEST = timedelta(minutes=5)
"""A request that has made nothing and was not renewed for this long is taken to have died with its process."""

_REPEATED_WITHIN = timedelta(minutes=10)
"""How long a request without a key is remembered for a client that says it repeats one."""


@dataclass(frozen=True)
class IdempotentRequest:
    owner: str
    route: str
    key: str | None
    """The Idempotency-Key."""
    body_sha256: str
    """The digest of the query and the body."""
    repeated: bool
    """Whether the client says that it has sent this before."""


@dataclass(frozen=True)
class New:
    """A request that is to be carried out."""

    id: str


@dataclass(frozen=True)
class Replay:
    """A request that was sent before."""

    resource: str | None
    """The id of what the first one made; None while that one is still in progress."""


def begin(session: Session, request: IdempotentRequest) -> New | Replay:
    """Registers a request. Raises RequestReused where its key came with another body."""
    session.execute(delete(Request).where(Request.created_at < func.now() - KEPT))
    dead = (Request.resource.is_(None), Request.created_at < func.now() - LONGEST)
    session.execute(delete(Request).where(Request.owner == request.owner, Request.route == request.route, *dead))
    before = _find(session, request)
    if before is not None:
        return before
    row = {"id": secrets.token_hex(12), "owner": request.owner, "route": request.route, "key": request.key}
    # The second of two concurrent requests with one key waits here until the first one's row is committed.
    new = insert(Request).values(**row, body_sha256=request.body_sha256).on_conflict_do_nothing().returning(Request.id)
    made = session.scalar(new)
    if made is not None:
        return New(made)
    return _find(session, request) or Replay(None)


def _find(session: Session, request: IdempotentRequest) -> Replay | None:
    of_owner = (Request.owner == request.owner, Request.route == request.route)
    if request.key is not None:
        found = session.scalar(select(Request).where(*of_owner, Request.key == request.key))
        if found is not None and found.body_sha256 != request.body_sha256:
            raise RequestReused(request.key)
    elif request.repeated:
        lately = (Request.body_sha256 == request.body_sha256, Request.created_at > func.now() - _REPEATED_WITHIN)
        found = session.scalar(select(Request).where(*of_owner, *lately).order_by(Request.created_at.desc()).limit(1))
    else:
        found = None
    return None if found is None else Replay(found.resource)


def renew(session: Session, request_id: str) -> None:
    """Records that the request is still in progress."""
    session.execute(update(Request).where(Request.id == request_id).values(created_at=func.now()))


def complete(session: Session, request_id: str, resource: str) -> None:
    """Records what the request made, in the transaction that makes it. Raises RequestOvertaken, and that transaction
    must then be rolled back."""
    mine = update(Request).where(Request.id == request_id).values(resource=resource).returning(Request.id)
    if session.scalar(mine) is None:
        raise RequestOvertaken


def release(session: Session, request_id: str) -> None:
    """Forgets a request that has made nothing, so that it may be sent again."""
    session.execute(delete(Request).where(Request.id == request_id, Request.resource.is_(None)))
