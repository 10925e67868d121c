"""Fine-tuning jobs by OpenAI's wire, where no worker takes them."""

from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

NEW_JOB = {"model": "tiny", "training_file": "rows.jsonl"}


def create(client: TestClient, owner: str = "anna", **fields: Any) -> Any:
    return client.post("/v1/fine_tuning/jobs", json={**NEW_JOB, **fields}, headers={"x-owner": owner})


def test_foreign_or_deleted_models_are_not_found(client: TestClient, engine: sa.Engine) -> None:
    bobs = client.post("/keys", json={"owner": "bob"}).json()["secret"]
    bob = {"authorization": f"Bearer {bobs}"}
    job_id = create(client).json()["id"]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET status = 'succeeded', finished_at = now()"))
    name = client.get(f"/v1/fine_tuning/jobs/{job_id}").json()["fine_tuned_model"]
    for method, path in (("GET", f"/v1/models/{name}"), ("DELETE", f"/v1/models/{name}")):
        assert client.request(method, path, headers=bob).status_code == 404
    answer = client.post("/v1/fine_tuning/jobs", json={**NEW_JOB, "model": name}, headers=bob)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert name not in client.get("/v1/models", headers=bob).text
    # For its owner it is there; it has no files to train on from.
    assert "no artifact adapter.tar" in create(client, model=name).json()["error"]["message"]
    assert client.delete(f"/v1/models/{name}").json() == {"id": name, "object": "model", "deleted": True}
    assert client.delete(f"/v1/models/{name}").status_code == 404
    assert create(client, model=name).status_code == 404


@pytest.mark.parametrize(
    "after", ["nonsense", "ftevent-" + "0" * 24 + "-1-1-e", "ftevent-" + "0" * 24 + "-9999999999-0-e", "%00"]
)
def test_unknown_cursor_is_named(client: TestClient, after: str) -> None:
    job_id = create(client).json()["id"]
    answer = client.get(f"/v1/fine_tuning/jobs/{job_id}/events", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")
    answer = client.get(f"/v1/fine_tuning/jobs/{job_id}/checkpoints", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")


def test_jobs_without_metadata_are_listed_by_null(client: TestClient) -> None:
    tagged = create(client, metadata={"a": ""}).json()["id"]
    plain = create(client).json()["id"]

    def listed(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/v1/fine_tuning/jobs?{query}").json()["data"]]

    assert listed("") == [plain, tagged]
    assert listed("metadata=null") == [plain]
    assert listed("metadata[a]=") == [tagged]
    assert listed("metadata[a]=b") == []


@pytest.mark.parametrize("query", ["metadata[a%00]=", "metadata[a]=%00", "metadata[%00]=b&metadata[a]="])
def test_filter_that_no_metadata_can_have_is_named(client: TestClient, query: str) -> None:
    create(client, metadata={"a": ""})
    answer = client.get(f"/v1/fine_tuning/jobs?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "metadata")


def test_invalid_field_is_a_bad_request(client: TestClient) -> None:
    for fields, param in (
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"suffix": "a b"}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"unknown": 1}, "unknown"),
        ({"training_file": "none.jsonl"}, "dataset"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
    ):
        answer = create(client, **fields)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"].startswith(param)


_MODEL, _FILE = b'"model": "tiny"', b'"training_file": "rows.jsonl"'


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (b'"hyperparameters": {"learning_rate_multiplier": NaN}', "hyperparameters.learning_rate_multiplier"),
        (b'"hyperparameters": {"learning_rate_multiplier": 1e999}', "hyperparameters.learning_rate_multiplier"),
        (b'"recipe": {"optimizer": {"learning_rate": NaN}}', "optimizer.learning_rate"),
        (b'"recipe": ' + b'{"a":' * 100_000, "body"),
        (b'"recipe": ' + b"[" * 100_000 + b"]" * 100_000, "body"),
        (b'"suffix": "a\\u0000b"', "suffix"),
        (b'"suffix": "a\0b"', "body"),
        (b'"metadata": {"a": "\\u0000"}', "metadata"),
        (b'"seed": -9999999999999999999999', "seed"),
        (b'"suffix": "\xff"', "body"),
    ],
    ids=[
        "NaN",
        "infinite",
        "NaN in the recipe",
        "nested",
        "whole and nested",
        "NUL",
        "raw NUL",
        "NUL within",
        "-",
        "UTF-8",
    ],
)
def test_body_no_sdk_sends_is_a_bad_request(client: TestClient, more: bytes, param: str) -> None:
    body = b"{" + b", ".join([_MODEL, _FILE, more]) + b"}"
    answer = client.post("/v1/fine_tuning/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].startswith(param)
    assert len(answer.content) < 1000
    assert client.get("/v1/fine_tuning/jobs").json()["data"] == []


@pytest.mark.parametrize("name", ["model", "training_file"])
def test_nul_in_a_name_is_a_bad_request(client: TestClient, name: str) -> None:
    answer = create(client, **{name: "a\0b"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
