"""Requests that create something, each known by its owner, its route, and its Idempotency-Key or its body. A repeated
one gets what the first one made."""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from store.errors import RequestOvertaken, RequestReused
from store.models import Request

KEPT = timedelta(hours=24)
"""How long a key is remembered."""

LONGEST = timedelta(minutes=5)
"""A request that has made nothing and was not renewed for this long is taken to have died with its process."""

_REPEATED_WITHIN = timedelta(minutes=10)
"""How long a request without a key is remembered for a client that says it repeats one."""

_NOTHING_LOADED = {"synchronize_session": False}
"""For statements on rows of which no session holds objects."""


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


def begin(session: Session | Connection, request: IdempotentRequest) -> New | Replay:
    """Registers a request. Raises RequestReused where its key came with another body."""
    if request.key is None and request.repeated:
        before = _same_body(session, request)
        if before is not None:
            return before
    row = {"id": secrets.token_hex(12), "owner": request.owner, "route": request.route, "key": request.key}
    made = session.scalar(_REGISTER, row | {"body_sha256": request.body_sha256})
    return _same_key(session, request) if made is None else New(made)


def _register() -> ReturningInsert[str]:
    """Registers a request, in place of a forgotten or dead one with its key. Returns nothing where another has the key;
    the second of two concurrent requests waits here until the first one's row is committed."""
    columns = ("id", "owner", "route", "key", "body_sha256")
    new = insert(Request).values({name: bindparam(name) for name in columns})
    taken_over = {"id": new.excluded.id, "body_sha256": new.excluded.body_sha256}
    replacing = new.on_conflict_do_update(
        index_elements=["owner", "route", "key"],
        index_where=Request.key.is_not(None),
        set_={**taken_over, "resource": None, "created_at": func.now()},
        where=(Request.created_at < func.now() - KEPT) | _DEAD,
    )
    return replacing.returning(Request.id)


_DEAD = Request.resource.is_(None) & (Request.created_at < func.now() - LONGEST)
_REGISTER = _register()


def _same_key(session: Session | Connection, request: IdempotentRequest) -> Replay:
    its = (Request.owner == request.owner, Request.route == request.route, Request.key == request.key)
    found = session.execute(select(Request.body_sha256, Request.resource).where(*its)).one_or_none()
    if found is None:
        return Replay(None)  # it has just been released: to be sent again
    if found.body_sha256 != request.body_sha256:
        raise RequestReused(request.key or "")
    return Replay(found.resource)


def _same_body(session: Session | Connection, request: IdempotentRequest) -> Replay | None:
    its = (Request.owner == request.owner, Request.route == request.route, Request.body_sha256 == request.body_sha256)
    lately = (Request.created_at > func.now() - _REPEATED_WITHIN, ~_DEAD)
    latest = select(Request.resource).where(*its, *lately).order_by(Request.created_at.desc()).limit(1)
    found = session.execute(latest).one_or_none()
    return None if found is None else Replay(found.resource)


def forget(session: Session) -> None:
    """Deletes the requests that are no longer remembered."""
    session.execute(delete(Request).where(Request.created_at < func.now() - KEPT), execution_options=_NOTHING_LOADED)


def renew(session: Session, request_id: str) -> None:
    """Records that the request is still in progress; nothing where it has just ended."""
    mine = update(Request).where(Request.id == request_id, Request.resource.is_(None)).values(created_at=func.now())
    session.execute(mine, execution_options=_NOTHING_LOADED)


def complete(session: Session, request_id: str, resource: str) -> None:
    """Records what the request made, in the transaction that makes it. Raises RequestOvertaken, and that transaction
    must then be rolled back."""
    if session.connection().scalar(_COMPLETE, {"its_id": request_id, "made": resource}) is None:
        raise RequestOvertaken


_COMPLETE = (
    update(Request).where(Request.id == bindparam("its_id")).values(resource=bindparam("made")).returning(Request.id)
)


def release(session: Session, request_id: str) -> None:
    """Forgets a request that has made nothing, so that it may be sent again."""
    mine = delete(Request).where(Request.id == request_id, Request.resource.is_(None))
    session.execute(mine, execution_options=_NOTHING_LOADED)
