"""Makes what a request asks for once, however often it is sent."""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from api.errors import InvalidParameter, StillAtWork
from api.who import Who
from store import requests
from store.requests import Asked, First
from store.session import Sessions

log = logging.getLogger(__name__)

_WAIT = 20.0  # seconds, for the first of several at once
_LOOK = 0.1  # seconds between two looks

Made = TypeVar("Made")
Settle = Callable[[Session, str], None]
"""Called in the transaction that makes the resource, with its id."""


async def _asked(
    request: Request,
    who: Who,
    idempotency_key: Annotated[str | None, Header()] = None,
    x_stainless_retry_count: Annotated[str | None, Header()] = None,
) -> Asked:
    """Raises InvalidParameter."""
    if idempotency_key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", idempotency_key):
        raise InvalidParameter("Idempotency-Key", idempotency_key, "give 1 to 255 printable characters, no spaces")
    repeated = x_stainless_retry_count is not None and x_stainless_retry_count.strip() not in ("", "0")
    return Asked(who.owner, f"{request.method} {request.url.path}", idempotency_key, "", repeated)


Once = Annotated[Asked, Depends(_asked)]
"""Without the digest of its body, which a route adds by `with_body`."""


def with_body(asked: Asked, *parts: bytes) -> Asked:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return Asked(asked.owner, asked.route, asked.key, digest.hexdigest(), asked.repeated)


def once(sessions: Sessions, asked: Asked, make: Callable[[Settle], Made], again: Callable[[str], Made]) -> Made:
    """What `make` makes, or `again` of the id of what the first such request has made. Raises RequestReused,
    StillAtWork."""
    deadline = time.monotonic() + _WAIT
    while True:
        with sessions.begin() as session:
            state = requests.begin(session, asked)
        if isinstance(state, First):
            break
        if state.resource is not None:
            return again(state.resource)
        if time.monotonic() > deadline:
            raise StillAtWork("the first request of this kind is still at work; ask again in a few seconds")
        time.sleep(_LOOK)
    request_id = state.id
    try:
        return make(lambda session, resource: requests.settle(session, request_id, resource))
    except BaseException:
        try:
            with sessions.begin() as session:
                requests.give_up(session, request_id)
        except OperationalError as error:
            log.warning("a request that made nothing is remembered for %s: %s", requests.LONGEST, error)
        raise
