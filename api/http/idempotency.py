"""Does what a request wants once, however often it is sent."""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.auth.who import Who
from api.context import Services
from api.errors import InvalidParameter, RequestInProgress
from api.http.body import read_body
from contract import patterns
from store.access import idempotent_requests
from store.access.idempotent_requests import IdempotentRequest, Replay
from store.session import Sessions, autocommit

log = logging.getLogger(__name__)


async def _streamed(
    request: Request,
    who: Who,
    idempotency_key: Annotated[str | None, Header(json_schema_extra={"pattern": patterns.IDEMPOTENCY_KEY})] = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> IdempotentRequest:
    """Raises InvalidParameter."""
    if idempotency_key is not None and not re.fullmatch(patterns.IDEMPOTENCY_KEY, idempotency_key):
        raise InvalidParameter(
            "Idempotency-Key", idempotency_key, f"use {patterns.DESCRIPTIONS[patterns.IDEMPOTENCY_KEY]}"
        )
    repeated = x_stainless_retry_count is not None and x_stainless_retry_count.strip() not in ("", "0")
    once = IdempotentRequest(who.owner, f"{request.method} {request.url.path}", idempotency_key, "", repeated)
    # With another query a key is refused, as with another body.
    return with_body(once, request.url.query.encode())


OnceStreamed = Annotated[IdempotentRequest, Depends(_streamed)]
"""A request without its body, which the route adds by `with_body` once it has read it."""


async def _once(once: OnceStreamed, body: Annotated[bytes, Depends(read_body)]) -> IdempotentRequest:
    return with_body(once, body)


Once = Annotated[IdempotentRequest, Depends(_once)]
"""A request that makes something new: a repeated one is known by its Idempotency-Key, or by its body where the client
says that it repeats it."""


async def _keyed(once: Once) -> IdempotentRequest:
    return replace(once, repeated=False)


Keyed = Annotated[IdempotentRequest, Depends(_keyed)]
"""A request that may be meant twice in the same words, such as a pause, a resume and a pause. A repeated one is known
by its Idempotency-Key alone."""


def with_body(once: IdempotentRequest, *parts: bytes) -> IdempotentRequest:
    digest = hashlib.sha256()
    for part in (once.body_sha256.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return replace(once, body_sha256=digest.hexdigest())


@dataclass(frozen=True)
class Turn:
    """What is left to do for a request."""

    made: str | None
    """The id of what the first such request made; None where this one is to make it."""
    request_id: str | None = None

    def complete(self, session: Session, made: str) -> None:
        """Records what was made, in the transaction that makes it. Raises RequestOvertaken."""
        if self.request_id is not None:
            idempotent_requests.complete(session, self.request_id, made)


@contextmanager
def idempotent(services: Services, once: IdempotentRequest) -> Iterator[Turn]:
    """A context that makes something and calls `complete`, unless `made` says that it has been made. When it raises,
    the request may be sent again. Raises RequestReused, RequestInProgress."""
    with autocommit(services.sessions) as connection:
        begun = idempotent_requests.begin(connection, once)
    if isinstance(begun, Replay):
        if begun.resource is None:
            raise RequestInProgress("the same request is still in progress; send it again in a few seconds")
        yield Turn(begun.resource)
        return
    try:
        with services.requests.open(begun.id):
            yield Turn(None, begun.id)
    except BaseException:
        _release(services.sessions, begun.id)
        raise


def _release(sessions: Sessions, request_id: str) -> None:
    try:
        with sessions.begin() as session:
            idempotent_requests.release(session, request_id)
    except OperationalError as error:
        log.warning("a request that made nothing is remembered for %s: %s", idempotent_requests.LONGEST, error)
