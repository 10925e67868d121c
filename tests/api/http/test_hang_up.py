"""A client that goes away in the middle of a body makes no error of the service."""

import logging

import pytest
from fastapi.testclient import TestClient

from tests.api.http.leaving_client import leave
from tests.support.api import description

BEGINNINGS = {b"application/json": b"{", b"multipart/form-data; boundary=x": b"--x\r\n"}


def hang_up(client: TestClient, method: str, path: str, content_type: bytes) -> int:
    """Sends the beginning of a body, and goes. The status that is counted."""
    (status,) = leave(client, path, BEGINNINGS[content_type], method, content_type, missing=99)
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
