"""No owner sees, guesses or changes what is another's: it is not there for it."""

import re
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.api.conftest import ADMIN, bearer, make

RECIPE = {"model": "tiny", "dataset": "rows.jsonl"}


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Method and path of every route."""
    app = client.app
    assert isinstance(app, FastAPI)
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_a_job_of_another_is_not_there_by_any_route(locked: TestClient) -> None:
    anna, bob = (bearer(make(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    job_id = locked.post("/jobs", json=RECIPE, headers=anna).json()["id"]
    asked = 0
    for method, path in routes(locked):
        if "{job_id}" not in path:
            continue
        path = re.sub(r"\{[^}]+\}", "adapter.tar.gz", path.replace("{job_id}", job_id))
        answer = locked.request(method, path, headers=bob, json={} if method == "POST" else None)
        assert answer.status_code == 404, (method, path, answer.text)
        if method != "HEAD":
            assert answer.json()["error"]["message"] == f"no job {job_id}"
        asked += 1
    assert asked >= 10
    assert locked.get(f"/jobs/{job_id}", headers=anna).json()["status"] == "queued"


def test_lists_hold_ones_own_and_an_admin_sees_all(locked: TestClient) -> None:
    anna, bob = (bearer(make(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    annas, bobs = (locked.post("/jobs", json=RECIPE, headers=who).json()["id"] for who in (anna, bob))

    def listed(headers: dict[str, str], **params: str) -> list[str]:
        page = locked.get("/jobs", headers=headers, params=params).json()
        return [job["id"] for job in page["data"]]

    assert (listed(anna), listed(bob)) == ([annas], [bobs])
    assert listed(anna, owner="bob") == [annas]
    assert listed(bearer(ADMIN)) == [bobs, annas]
    assert listed(bearer(ADMIN), owner="anna") == [annas]
    answer = locked.get(f"/jobs?after={annas}", headers=bob)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, f"no job {annas}")


def test_the_adapter_of_another_cannot_be_trained_further(locked: TestClient) -> None:
    anna, bob = (bearer(make(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    job_id = locked.post("/jobs", json=RECIPE, headers=anna).json()["id"]
    answer = locked.post("/jobs", json={**RECIPE, "adapter": {"start_from": job_id}}, headers=bob)
    error: dict[str, Any] = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "adapter.start_from")
    assert f"no job {job_id}" in error["message"]


def test_every_route_but_those_of_health_wants_to_know_who_asks(locked: TestClient) -> None:
    open_to_all = {"/health", "/health/live", "/health/ready", "/metrics", "/recipe-schema"}
    asked = [(method, path) for method, path in routes(locked) if path not in open_to_all]
    assert len(asked) >= 15
    for method, path in asked:
        answer = locked.request(method, re.sub(r"\{[^}]+\}", "x", path))
        assert answer.status_code in (401, 404), (method, path, answer.status_code)
        assert answer.status_code == 401 or "{" in path
