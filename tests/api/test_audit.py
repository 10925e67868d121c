"""Who did what: every route that changes something writes it down, and nothing is taken off again."""

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.exc import ProgrammingError

from contract.events import CheckpointEvent
from store import artifacts
from store.session import Sessions
from tests.support.api import ADMIN_KEY, RATING, bearer, make_key, routes, submit
from tests.support.artifacts import publish_rows, results, write_adapter_config
from tests.support.files import ROW
from tests.support.jobs import RECIPE

FILE = ("rows.jsonl", json.dumps(ROW).encode())

Step = tuple[str, str, str, str, dict[str, Any]]
"""What is sent, and then the action that is written down for it, and the id of what. They are done in order."""

OF_AN_OWNER: list[Step] = [
    ("POST", "/datasets", "dataset.create", "dataset_id", {"files": {"file": FILE}}),
    ("DELETE", "/datasets/{dataset_id}", "dataset.delete", "dataset_id", {}),
    ("POST", "/v1/files", "dataset.create", "file_id", {"files": {"file": FILE}, "data": {"purpose": "fine-tune"}}),
    ("DELETE", "/v1/files/{file_id}", "dataset.delete", "file_id", {}),
    ("POST", "/jobs", "job.create", "job_id", {"json": RECIPE}),
    ("POST", "/jobs/{job_id}/ratings", "rating.create", "rating_id", {"json": RATING}),
    ("DELETE", "/jobs/{job_id}/ratings/{rating_id}", "rating.delete", "rating_id", {}),
    ("POST", "/jobs/{job_id}/pause", "job.pause", "job_id", {}),
    ("POST", "/jobs/{job_id}/resume", "job.resume", "job_id", {}),
    ("POST", "/jobs/{job_id}/cancel", "job.cancel", "job_id", {}),
    ("POST", "/jobs/{job_id}/retry", "job.retry", "job_id", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/pause", "job.pause", "job_id", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/resume", "job.resume", "job_id", {}),
    ("POST", "/v1/fine_tuning/jobs/{job_id}/cancel", "job.cancel", "job_id", {}),
    (
        "POST",
        "/v1/fine_tuning/jobs",
        "job.create",
        "job_id",
        {"json": {"model": "tiny", "training_file": "rows.jsonl"}},
    ),
    (
        "POST",
        "/sweeps",
        "sweep.create",
        "sweep_id",
        {"json": {"recipe": RECIPE, "grid": {"seed": [1, 2]}}},
    ),
    ("POST", "/sweeps/{sweep_id}/cancel", "sweep.cancel", "sweep_id", {}),
    ("POST", "/webhooks", "webhook.create", "webhook_id", {"json": {"url": "https://example.com/"}}),
    ("PATCH", "/webhooks/{webhook_id}", "webhook.change", "webhook_id", {"json": {"enabled": False}}),
    ("POST", "/webhooks/{webhook_id}/test", "webhook.ping", "webhook_id", {}),
    ("POST", "/webhooks/deliveries/{delivery_id}/retry", "delivery.retry", "delivery_id", {}),
    ("DELETE", "/webhooks/{webhook_id}", "webhook.delete", "webhook_id", {}),
    ("PUT", "/secrets/{secret_name}", "secret.put", "secret_name", {"json": {"value": "a-token"}}),
    ("DELETE", "/secrets/{secret_name}", "secret.delete", "secret_name", {}),
]
OF_WHAT_WAS_TRAINED: list[Step] = [
    ("POST", "/jobs/{job_id}/exports", "export.create", "export_id", {"json": {}}),
    ("POST", "/jobs/{job_id}/evaluations", "evaluation.create", "evaluation_id", {"json": {"dataset": "rows.jsonl"}}),
    ("DELETE", "/jobs/{job_id}/evaluations/{evaluation_id}", "evaluation.delete", "evaluation_id", {}),
    ("PUT", "/secrets/{secret_name}", "secret.put", "secret_name", {"json": {"value": "a-token"}}),
    ("POST", "/jobs/{job_id}/pushes", "push.create", "push_id", {"json": {"repo": "org/a", "secret": "tracker"}}),
    ("DELETE", "/v1/files/{file_id}", "results.delete", "job_id", {}),
    ("DELETE", "/v1/models/{model}", "model.delete", "job_id", {}),
]
OF_AN_ADMIN: list[Step] = [
    ("POST", "/keys", "key.create", "key_id", {"json": {"owner": "bob"}}),
    ("DELETE", "/keys/{key_id}", "key.revoke", "key_id", {}),
    ("PUT", "/quotas/{owner}", "quota.put", "owner", {"json": {"queued_jobs": 2}}),
    ("DELETE", "/jobs/{job_id}", "job.delete", "job_id", {}),
    ("POST", "/clean", "clean", "", {}),
]


def test_changes_are_audited_with_owner_and_key(
    locked: TestClient, sessions: Sessions, engine: sa.Engine, home: Path
) -> None:
    things = {"owner": "bob", "secret_name": "tracker"}

    def do(key: dict[str, Any], steps: list[Step]) -> None:
        for method, path, action, target, more in steps:
            answer = locked.request(method, path.format_map(things), headers=bearer(key["secret"]), **more)
            assert answer.is_success, (method, path, answer.text)
            if path.endswith("/test"):
                things["delivery_id"] = answer.json()["id"]
            elif action.endswith(".create"):
                things[target] = answer.json()["id"]
            entry = locked.get("/audit?limit=1", headers=bearer(ADMIN_KEY)).json()["data"][0]
            reported = (entry["owner"], entry["key_id"], entry["action"], entry["target"], entry["request_id"])
            assert reported == (key["owner"], key["id"], action, things.get(target), answer.headers["x-request-id"])

    anna, boss = make_key(locked, owner="anna"), make_key(locked, owner="boss", admin=True)
    do(anna, OF_AN_OWNER)
    with sessions.begin() as session:
        event = CheckpointEvent(time=1, step=5, path="adapter", bytes=2, final=True)
        artifacts.add_checkpoint(session, things["job_id"], 1, event)
        artifacts.add(session, results(things["job_id"]))
    publish_rows(sessions)
    write_adapter_config(home, things["job_id"], "adapter")
    with engine.begin() as connection:
        succeeded = "UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = :job_id"
        connection.execute(sa.text(succeeded), things)
    things |= {"file_id": f"file-{things['job_id']}", "model": f"ft:tiny:anna::{things['job_id'].removeprefix('job_')}"}
    do(anna, OF_WHAT_WAS_TRAINED)
    do(boss, OF_AN_ADMIN)
    done = {
        (method, path.replace("results", "file_id"))
        for method, path, *_ in OF_AN_OWNER + OF_WHAT_WAS_TRAINED + OF_AN_ADMIN
    }
    changing = {(method, path) for method, path in routes() if method != "GET"}
    # tests/api/auth/test_sign_in.py signs in and out, and tests/inference/test_service.py gets answers.
    answers = {("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
    assert done == changing - {("POST", "/plans"), ("POST", "/session"), ("DELETE", "/session"), *answers}


def test_audit_tells_who_did_what_newest_first(client: TestClient) -> None:
    job_id = submit(client, {"x-owner": "anna"}).json()["id"]
    client.post(f"/jobs/{job_id}/cancel", headers={"x-owner": "bob", "x-request-id": "of-bob"})
    page = client.get("/audit?limit=1").json()
    (entry,) = page["data"]
    assert (entry["owner"], entry["action"], entry["target"]) == ("bob", "job.cancel", job_id)
    assert (entry["request_id"], entry["key_id"], page["has_more"]) == ("of-bob", None, True)
    (before,) = client.get(f"/audit?after={entry['seq']}").json()["data"]
    assert (before["owner"], before["action"], before["target"]) == ("anna", "job.create", job_id)
    assert [each["owner"] for each in client.get("/audit?owner=bob").json()["data"]] == ["bob"]


def test_audit_is_searched_by_action_and_object(client: TestClient) -> None:
    first, second = (submit(client).json()["id"] for _ in range(2))
    client.post(f"/jobs/{first}/cancel").raise_for_status()

    def found(**chosen: str) -> list[tuple[str, str]]:
        return [(each["action"], each["target"]) for each in client.get("/audit", params=chosen).json()["data"]]

    assert found(action="job.create") == [("job.create", second), ("job.create", first)]
    assert found(target=first) == [("job.cancel", first), ("job.create", first)]
    assert found(target=first, action="job.create", owner="default") == [("job.create", first)]
    assert found(target=first, owner="anna") == []


@pytest.mark.parametrize("change", ["UPDATE audit SET owner = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
def test_nothing_is_taken_off_the_audit(client: TestClient, engine: sa.Engine, change: str) -> None:
    submit(client)
    with engine.begin() as connection, pytest.raises(ProgrammingError, match="append-only"):
        connection.execute(sa.text(change))


def test_refused_requests_are_not_audited(client: TestClient) -> None:
    client.post("/jobs", json={**RECIPE, "dataset": "none.jsonl"})
    client.post("/jobs/job_" + "0" * 24 + "/cancel")
    assert client.get("/audit").json()["data"] == []
