"""Checks a request's key again while its body arrives and while its response is sent. A revoked key, or a
browser that has signed out, gets no more of an event stream or a download, and completes no upload."""

import logging
import time
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth.keyring import Credential, Holder, Keyring
from api.errors import WrongKey

log = logging.getLogger(__name__)

_AWAY_SECONDS = 1.0  # until an unavailable database is queried again


class _Revoked(Exception):
    """Ends a response that has begun. It has no handler: it is too late for another response."""


@dataclass
class Opened:
    """The key or the sign-in of a request, and its owner at that time."""

    shown: Credential
    holder: Holder
    unchecked_until: float = 0.0

    async def still_opens(self, keyring: Keyring) -> bool:
        """Whether the key still has the same owner and rights. True while the database is unavailable: an outage ends
        no stream."""
        if time.monotonic() < self.unchecked_until:
            return True
        try:
            holder = keyring.remembered(self.shown) or await run_in_threadpool(keyring.find, self.shown)
        except (OperationalError, NoConnectionFree):
            self.unchecked_until = time.monotonic() + _AWAY_SECONDS
            return True
        return holder == self.holder


class KeyCheck:
    """Wraps the routes. `api.auth.who` puts the key of a request into its state, as `opened`."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app, self._keyring = app, keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_stream = False

        async def is_revoked() -> bool:
            opened: Opened | None = scope["state"].get("opened")
            return opened is not None and not await opened.still_opens(self._keyring)

        async def checked_receive() -> Message:
            message = await receive()
            if message.get("body") and await is_revoked():
                raise WrongKey("the key was revoked while the request was sent")
            return message

        async def checked_send(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            elif message.get("more_body") and await is_revoked():
                raise _Revoked
            await send(message)

        try:
            await self._app(scope, checked_receive, checked_send)
        except _Revoked:
            log.info("an answer was cut off: its key was revoked")
            if is_stream:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            # Else the server closes the connection: a part of a file must not look like the whole.
