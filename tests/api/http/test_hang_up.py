"""A client that goes away in the middle of a body makes no error of the service."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from tests.support.api import description

BEGINNINGS = {b"application/json": b"{", b"multipart/form-data; boundary=x": b"--x\r\n"}


def hang_up(client: TestClient, method: str, path: str, content_type: bytes) -> int:
    """Sends the beginning of a body, and goes. The status that is counted."""
    assert isinstance(client.app, FastAPI)
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": BEGINNINGS[content_type], "more_body": True}, {"type": "http.disconnect"}]
    )
    statuses: list[int] = []

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"host", b"127.0.0.1:8000"), (b"content-type", content_type), (b"content-length", b"100")]
    scope: dict[str, Any] = {"type": "http", "http_version": "1.1", "scheme": "http", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": dict(client.app_state)}
    assert client.portal is not None
    client.portal.call(client.app, scope, receive, send)
    (status,) = statuses
    return status


def test_hangup_within_a_body_is_no_error(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    tried = set()
    for path, methods in description()["paths"].items():
        for method in sorted({"post", "put", "patch"} & set(methods)):
            for content_type in BEGINNINGS:
                tried.add((path, hang_up(client, method.upper(), path, content_type)))
    assert {status for _, status in tried} == {400}, tried
    assert len(tried) > 10
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
