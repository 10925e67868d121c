"""What an owner may have, and how often it may ask."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from store import artifacts
from store.models import Artifact, Job
from store.session import Sessions
from tests.support.api import error_of, serve, submit
from tests.support.jobs import begin, register


def test_owner_over_its_queued_quota_is_refused(client: TestClient) -> None:
    client.put("/quotas/anna", json={"queued_jobs": 1}).raise_for_status()
    job_id = submit(client, {"x-owner": "anna"}).json()["id"]
    answer = submit(client, {"x-owner": "anna"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert "may have 1" in answer.json()["error"]["message"]
    assert submit(client, {"x-owner": "bob"}).status_code == 201
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    assert submit(client, {"x-owner": "anna"}).status_code == 201


def test_default_limits_hold_for_everybody_else(client: TestClient) -> None:
    client.put("/quotas/*", json={"queued_jobs": 1, "bytes": 7}).raise_for_status()
    assert [submit(client).status_code for _ in range(2)] == [201, 429]
    client.put("/quotas/anna", json={"queued_jobs": 2}).raise_for_status()
    assert [submit(client, {"x-owner": "anna"}).status_code for _ in range(3)] == [201, 201, 429]
    assert client.get("/quotas/anna").json()["limits"] == {"running_jobs": None, "queued_jobs": 2, "bytes": 7}


def test_quota_shows_limits_and_usage(client: TestClient) -> None:
    submit(client, {"x-owner": "anna"})
    client.put("/quotas/anna", json={"running_jobs": 2, "bytes": 10}).raise_for_status()
    quota = client.get("/quota", headers={"x-owner": "anna"}).json()
    assert quota == {
        "owner": "anna",
        "limits": {"running_jobs": 2, "queued_jobs": 1000, "bytes": 10},
        "own_limits": {"running_jobs": 2, "queued_jobs": None, "bytes": 10},
        "used": {"running_jobs": 0, "queued_jobs": 1, "bytes": 0},
    }
    assert client.get("/quotas/anna").json() == quota


def test_owners_are_listed_by_name_with_their_usage(client: TestClient) -> None:
    client.put("/quotas/*", json={"running_jobs": 7}).raise_for_status()
    client.put("/quotas/zoe", json={"bytes": 5}).raise_for_status()
    client.post("/keys", json={"owner": "bob"}).raise_for_status()
    client.post("/datasets", files={"file": ("x.jsonl", b"{}")}, headers={"x-owner": "dan"}).raise_for_status()
    for _ in range(2):
        submit(client, {"x-owner": "anna"})
    pages = [client.get("/quotas", params={"limit": 3}).json()]
    pages.append(client.get("/quotas", params={"limit": 3, "after": pages[0]["data"][-1]["owner"]}).json())
    assert [[each["owner"] for each in page["data"]] for page in pages] == [["anna", "bob", "dan"], ["zoe"]]
    assert [page["has_more"] for page in pages] == [True, False]
    listed = {each["owner"]: each for page in pages for each in page["data"]}
    assert [listed[owner]["used"]["queued_jobs"] for owner in ("anna", "bob")] == [2, 0]
    assert [listed[owner]["used"]["bytes"] for owner in ("anna", "dan")] == [0, 2]
    assert listed["zoe"]["limits"] == {"running_jobs": 7, "queued_jobs": 1000, "bytes": 5}
    for owner, quota in listed.items():
        assert client.get(f"/quotas/{owner}").json() == quota


def test_artifacts_and_run_folders_count_as_bytes(client: TestClient, sessions: Sessions) -> None:
    anna = {"x-owner": "anna"}
    job_id = submit(client, anna).json()["id"]
    with sessions.begin() as session:
        artifacts.add(session, Artifact(job_id=job_id, name="a", kind="log", path=f"{job_id}/attempt-1/a", bytes=20))
        session.execute(sa.update(Job).values(run_bytes=300, attempt=1))
    assert client.get("/quota", headers=anna).json()["used"]["bytes"] == 320
    client.put("/quotas/anna", json={"bytes": 320}).raise_for_status()
    for answer in (submit(client, anna), client.post("/datasets", files={"file": ("x", b"{}")}, headers=anna)):
        error = error_of(answer, 429, "quota_exceeded")
        assert "of datasets, artifacts and run folders, and may keep 320; delete" in error["message"]
    client.post(f"/jobs/{job_id}/cancel").raise_for_status()
    client.delete(f"/jobs/{job_id}").raise_for_status()
    assert submit(client, anna).status_code == 201


def test_running_quota_bounds_started_jobs(client: TestClient, sessions: Sessions) -> None:
    client.put("/quotas/*", json={"running_jobs": 1}).raise_for_status()
    client.put("/quotas/bob", json={"running_jobs": 2}).raise_for_status()
    first, second, *bobs = (submit(client, {"x-owner": owner}).json()["id"] for owner in ("anna", "anna", "bob", "bob"))

    def start() -> set[str]:
        with sessions.begin() as session:
            register(session, slots=5)
            return {part.job_id for part in begin(session)}

    assert start() == {first, *bobs}
    reason = client.get(f"/jobs/{second}").json()["queue"]["reason"]
    assert reason == "The owner already runs 1 job, the most that may run at once."
    assert client.get("/quotas/anna").json()["used"]["running_jobs"] == 1
    client.put("/quotas/anna", json={"running_jobs": 2}).raise_for_status()
    assert start() == {second}


@pytest.mark.parametrize("limit", [-1, 2**80, "many", 1.5])
def test_limit_that_is_none_is_named(client: TestClient, limit: Any) -> None:
    answer = client.put("/quotas/anna", json={"queued_jobs": limit})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "queued_jobs")


def test_frequent_requests_are_told_when_to_retry(settings: ApiSettings, sessions: Sessions) -> None:
    with serve(settings.model_copy(update={"rate_limit": "3/minute"})) as client:
        keys = [client.post("/keys", json={"owner": owner}).json()["secret"] for owner in ("anna", "bob")]
        anna, bob = ({"authorization": f"Bearer {key}"} for key in keys)
        assert [client.get("/jobs", headers=anna).status_code for _ in range(4)] == [200, 200, 200, 429]
        limited = client.get("/jobs", headers=anna)
        assert limited.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(limited.headers["retry-after"]) <= 60
        assert client.get("/jobs", headers=bob).status_code == 200
