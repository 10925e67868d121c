"""Makes what a request asks for once, however often it is sent."""

import hashlib
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from api.body import read_body
from api.errors import InvalidParameter, StillAtWork
from api.who import Who
from contract import patterns
from store.access import idempotent_requests
from store.access.idempotent_requests import Asked, First, Repeated
from store.session import Sessions

log = logging.getLogger(__name__)

_WAIT = 20.0  # seconds, for the first of several at once
_LOOK = 0.1  # seconds between two looks
_MOST_WAITING = 7  # of one owner: each holds a thread of the API, which has 40
_STILL = "the first request of this kind is still at work; ask again in a few seconds"
RENEW_SECONDS = idempotent_requests.LONGEST.total_seconds() / 5

_lock = threading.Lock()
_waiters: Counter[str] = Counter()
"""Of each owner, in this process."""

Made = TypeVar("Made")
Settle = Callable[[Session, str], None]
"""Called in the transaction that makes the resource, with its id. Raises RequestOvertaken."""


async def _asked(
    request: Request,
    who: Who,
    idempotency_key: Annotated[str | None, Header(json_schema_extra={"pattern": patterns.IDEMPOTENCY_KEY})] = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> Asked:
    """Raises InvalidParameter."""
    if idempotency_key is not None and not re.fullmatch(patterns.IDEMPOTENCY_KEY, idempotency_key):
        raise InvalidParameter("Idempotency-Key", idempotency_key, f"use {patterns.WORDS[patterns.IDEMPOTENCY_KEY]}")
    repeated = x_stainless_retry_count is not None and x_stainless_retry_count.strip() not in ("", "0")
    asked = Asked(who.owner, f"{request.method} {request.url.path}", idempotency_key, "", repeated)
    # With another query a key is refused, as with another body.
    return with_body(asked, request.url.query.encode())


Once = Annotated[Asked, Depends(_asked)]
"""Without its body, which a route adds by `with_body`."""


async def _keyed(asked: Once, body: Annotated[bytes, Depends(read_body)]) -> Asked:
    return with_body(asked, body)


Keyed = Annotated[Asked, Depends(_keyed)]
"""With its body, of a route that needs none: for `once_by_key`."""


def with_body(asked: Asked, *parts: bytes) -> Asked:
    digest = hashlib.sha256()
    for part in (asked.body_sha256.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return Asked(asked.owner, asked.route, asked.key, digest.hexdigest(), asked.repeated)


def once(sessions: Sessions, asked: Asked, make: Callable[[Settle], Made], again: Callable[[str], Made]) -> Made:
    """What `make` makes, or `again` of the id of what the first such request has made. Raises RequestReused,
    StillAtWork, RequestOvertaken."""
    state = _begin(sessions, asked)
    if not isinstance(state, First) and state.resource is None:
        with _waiting(asked.owner):
            state = _wait(sessions, asked)
    if not isinstance(state, First):
        assert state.resource is not None
        return again(state.resource)
    request_id = state.id
    try:
        with _renewing(sessions, request_id):
            return make(lambda session, resource: idempotent_requests.settle(session, request_id, resource))
    except BaseException:
        try:
            with sessions.begin() as session:
                idempotent_requests.give_up(session, request_id)
        except OperationalError as error:
            log.warning("a request that made nothing is remembered for %s: %s", idempotent_requests.LONGEST, error)
        raise


def _begin(sessions: Sessions, asked: Asked) -> First | Repeated:
    with sessions.begin() as session:
        return idempotent_requests.begin(session, asked)


def _wait(sessions: Sessions, asked: Asked) -> First | Repeated:
    """Until the first request is done, or was given up. Raises RequestReused, StillAtWork."""
    deadline = time.monotonic() + _WAIT
    while time.monotonic() <= deadline:
        time.sleep(_LOOK)
        state = _begin(sessions, asked)
        if isinstance(state, First) or state.resource is not None:
            return state
    raise StillAtWork(_STILL)


@contextmanager
def _waiting(owner: str) -> Iterator[None]:
    """Raises StillAtWork where as many of the owner wait already as may."""
    with _lock:
        if _waiters[owner] >= _MOST_WAITING:
            raise StillAtWork(_STILL)
        _waiters[owner] += 1
    try:
        yield
    finally:
        with _lock:
            _waiters[owner] -= 1
            if not _waiters[owner]:
                del _waiters[owner]


@contextmanager
def _renewing(sessions: Sessions, request_id: str) -> Iterator[None]:
    """It is not taken for dead, however long it reads or copies."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(RENEW_SECONDS):
            try:
                with sessions.begin() as session:
                    idempotent_requests.renew(session, request_id)
            except SQLAlchemyError as error:
                log.warning("a request that is at work may be taken for dead: %s", error)

    thread = threading.Thread(target=renew, name="renew")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def once_by_key(sessions: Sessions, asked: Asked, make: Callable[[Settle], Made], again: Callable[[str], Made]) -> Made:
    """As `once`, for what may well be asked twice in the same words: a pause, a resume, and a pause. Without a key it
    is done each time, though the client says that it has sent it before. Raises as `once`."""
    return make(unsettled) if asked.key is None else once(sessions, asked, make, again)


def unsettled(_session: Session, _resource: str) -> None:
    """The Settle of what nobody will ask for again."""
