"""Refuses a request that repeats a header which decides something: a proxy may act on the other one."""

from http import HTTPStatus

from fastapi import HTTPException, Request

_ONCE = (
    "authorization",
    "content-type",
    "host",
    "idempotency-key",
    "last-event-id",
    "origin",
    "range",
    "sec-fetch-site",
    "x-owner",
    "x-stainless-retry-count",
)


async def refuse_repeated(request: Request) -> None:
    """Raises HTTPException, 400."""
    for name in _ONCE:
        if len(request.headers.getlist(name)) > 1:
            raise HTTPException(HTTPStatus.BAD_REQUEST, f"the header {name} came more than once; send it once")
