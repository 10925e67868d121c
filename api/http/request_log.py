"""Counts each request and writes one log line for it."""

import logging
import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.telemetry import Telemetry
from contract.formatting import truncate

log = logging.getLogger("api.request")

QUIET = {"/health", "/health/live", "/health/ready", "/metrics"}
"""Machines poll these all the time: their lines would hide the others."""


class RequestLog:
    """Runs inside RequestId, whose id each line of the request has."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["state"]["request_id"])
        began = time.perf_counter()
        answered: tuple[int, float] | None = None

        async def send_and_note(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"], time.perf_counter() - began
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            # Without a response the error is logged elsewhere.
            status, seconds = answered or (500, time.perf_counter() - began)
            route = getattr(scope.get("route"), "path", None)
            self._telemetry.count(scope["method"], route, status, seconds)
            if route not in QUIET or status >= 400:
                log.info("request", extra=_told(scope, route, status, time.perf_counter() - began))


def _told(scope: Scope, route: str | None, status: int, seconds: float) -> dict[str, Any]:
    fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 4)}
    job_id = scope.get("path_params", {}).get("job_id")
    return fields | ({"job_id": truncate(job_id)} if job_id else {})
