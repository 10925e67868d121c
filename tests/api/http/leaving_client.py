"""A client that goes away in the middle of its request, or right after it."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message


def leave(
    client: TestClient,
    path: str,
    body: bytes,
    method: str = "POST",
    content_type: bytes = b"application/json",
    missing: int = 0,
) -> list[int]:
    """Sends the body, of which so many bytes are missing, and goes. The statuses that are counted."""
    assert isinstance(client.app, FastAPI)
    sent: Iterator[Message] = iter([{"type": "http.request", "body": body, "more_body": missing > 0}])
    statuses: list[int] = []

    async def receive() -> Message:
        return next(sent, {"type": "http.disconnect"})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    length = str(len(body) + missing).encode()
    headers = [(b"host", b"127.0.0.1:8000"), (b"content-type", content_type), (b"content-length", length)]
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": dict(client.app_state)}
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    return statuses
