"""A span for each request, in the caller's trace where it sends a traceparent."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.request_log import QUIET
from runtime import tracing


class RequestTrace:
    """Installed only while tracing is on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        status = 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with tracing.request(Headers(scope=scope).get("traceparent")) as describe:
            try:
                await self.app(scope, receive, send_and_note)
            finally:
                method, route = scope["method"], getattr(scope.get("route"), "path", "none")
                attributes = {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                    "finetuned.request_id": scope.get("state", {}).get("request_id", ""),
                }
                describe(f"{method} {route}", attributes, status >= 500)
