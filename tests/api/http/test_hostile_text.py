"""Control characters of a request come back escaped, in every refusal of every route, and in the log."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.support.api import Response, bearer, description

HOSTILE = "x\x1b[2J\r\n2026-11-29T00:00:00Z info forged\t\0\x7f\x85\x9b\u2028\u2029\u202e\u2066\U000e0041"


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths: dict[str, dict[str, Any]] = description()["paths"]
    return [(method.upper(), path, reported) for path, methods in paths.items() for method, reported in methods.items()]


def hostile_requests() -> list[tuple[str, str, dict[str, Any]]]:
    """Of each route: text in its path, in each parameter by itself, in a body's names and values."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    for method, path, reported in operations():
        parameters = reported.get("parameters", [])
        filled = path
        for parameter in parameters:
            if parameter["in"] == "path":
                filled = filled.replace(f"{{{parameter['name']}}}", quote(HOSTILE, safe=""))
        names = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
        found.append((method, filled, {}))
        found += [(method, filled, {"params": {name: HOSTILE}}) for name in names]
        if "requestBody" in reported:
            for body in ({HOSTILE: HOSTILE}, {"model": HOSTILE, "dataset": HOSTILE, "url": HOSTILE, "owner": HOSTILE}):
                headers = {"content-type": "application/json"}
                found.append((method, filled, {"content": json.dumps(body), "headers": headers}))
            found.append((method, filled, {"files": {HOSTILE: (HOSTILE, HOSTILE)}}))
    found.append(("GET", "/" + quote(HOSTILE), {}))
    found.append(
        ("POST", "/datasets", {"content": HOSTILE.encode(), "headers": {"content-type": b"multipart/x; \x9b"}})
    )
    headers_named = ("last-event-id", "x-owner", "x-request-id", "range", "idempotency-key", "origin")
    some = "/jobs/job_" + "0" * 24
    for name in headers_named:
        found.append(("POST", f"{some}/pause", {"headers": {name: b"x\t\x9b\xe2\x80\xae\xff"}}))
        found.append(("GET", f"{some}/events", {"headers": {name: b"x\t\x9b\xe2\x80\xae\xff"}}))
    return found


def shows_no_control_characters(answer: Response) -> None:
    assert all(value.isprintable() for pair in answer.headers.items() for value in pair)
    assert answer.content.decode().isprintable()
    error = answer.json()["error"]
    assert all(value is None or value.isprintable() for value in error.values())


def test_no_refusal_reflects_a_control_character(client: TestClient) -> None:
    refusals = 0
    for method, path, more in hostile_requests():
        answer = client.request(method, path, **more)
        assert answer.status_code < 500 or path == "/health/ready", (method, path, more, answer.text)
        if answer.status_code >= 400:
            shows_no_control_characters(answer)
            refusals += 1
    assert refusals > 100


@pytest.mark.parametrize("headers", [{}, bearer("sk-ft-wrong"), {"authorization": b"Bearer \x9b\xe2\x80\xae"}])
def test_key_refusal_reflects_no_control_character(locked: TestClient, headers: dict[str, str]) -> None:
    for method, path, more in hostile_requests()[:40]:
        answer = locked.request(method, path, **{**more, "headers": {**more.get("headers", {}), **headers}})
        if answer.status_code >= 400:
            shows_no_control_characters(answer)
