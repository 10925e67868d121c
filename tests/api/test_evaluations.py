import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from contract.events import CheckpointEvent
from store import artifacts, evaluations
from store.jobs import jobs
from store.models import Deletion
from store.session import Sessions
from tests.support.api import bearer, error_of, make_key, post_job, upload
from tests.support.artifacts import publish
from tests.support.files import ROW
from tests.support.jobs import LEASE, make_recipe


def saved(sessions: Sessions, home: Path, config: dict[str, Any] | None = None, owner: str = "default") -> str:
    """The id of a job with an adapter of this configuration, and a checkpoint of step 2."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(batch={"max_length": 512}), owner).id
        for step, final in ((2, False), (5, True)):
            event = CheckpointEvent(time=1, step=step, path=f"step-{step}", bytes=2, final=final)
            artifacts.add_checkpoint(session, job_id, 1, event)
            folder = home / "runs" / artifacts.run_path(job_id, 1) / f"step-{step}"
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").write_text(json.dumps(config or {}))
    publish(sessions, home)
    return job_id


@pytest.fixture
def job_id(sessions: Sessions, home: Path) -> str:
    return saved(sessions, home)


def evaluate(client: TestClient, job_id: str, **wanted: Any) -> Any:
    return client.post(f"/jobs/{job_id}/evaluations", json={"dataset": "rows.jsonl", **wanted})


def test_evaluation_waits_with_its_settings(client: TestClient, job_id: str) -> None:
    answer = evaluate(client, job_id, checkpoint=2, limit=1, max_new_tokens=9, temperature=0.5, seed=3)
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert (made["status"], made["checkpoint"], made["examples"], made["done"]) == ("queued", 2, 1, 0)
    assert made["settings"] == {"limit": 1, "max_length": 512, "max_new_tokens": 9, "temperature": 0.5, "seed": 3}
    assert len(made["dataset"]["sha256"]) == 64
    assert client.get(f"/jobs/{job_id}/evaluations/{made['id']}").json() == made
    other = evaluate(client, job_id).json()
    assert (other["checkpoint"], other["settings"]["limit"]) == (None, 200)
    page = client.get(f"/jobs/{job_id}/evaluations", params={"limit": 1}).json()
    assert page == {"data": [other], "has_more": True}
    rest = client.get(f"/jobs/{job_id}/evaluations", params={"after": other["id"]}).json()
    assert rest == {"data": [made], "has_more": False}
    assert client.get(f"/jobs/{job_id}/evaluations/{made['id']}/rows").json() == {"data": [], "has_more": False}


def test_uploaded_dataset_keeps_its_format_and_columns(client: TestClient, job_id: str) -> None:
    rows = b'{"q": "Who?", "a": "I."}\n'
    columns = '{"prompt": "q", "completion": "a"}'
    dataset = upload(client, rows, "rows.jsonl", format="prompt_completion", columns=columns)
    made = evaluate(client, job_id, dataset=dataset["id"]).json()
    assert (made["dataset"]["path"], made["dataset"]["format"]) == (dataset["id"], "prompt_completion")
    assert made["dataset"]["columns"] == {"prompt": "q", "completion": "a"}
    given = {"path": dataset["id"], "format": "prompt_completion", "columns": {"prompt": "q", "completion": "a"}}
    assert evaluate(client, job_id, dataset=given).json()["dataset"] == made["dataset"]


@pytest.mark.parametrize(
    ("wanted", "param", "said"),
    [
        ({"dataset": "none.jsonl"}, "dataset", "no file none.jsonl"),
        ({"dataset": "file-" + "0" * 24}, "dataset", "no dataset file-"),
        ({"dataset": {"path": "rows.jsonl", "chat_template": "chatml"}}, "dataset", "leave chat_template out"),
        ({"dataset": {"path": "rows.jsonl", "format": "alpaca"}}, "dataset", "row 1"),
        ({"dataset": {"path": "rows.jsonl", "sha256": "0" * 64}}, "dataset.sha256", "got 000"),
        ({"dataset": {"path": "rows.jsonl", "colums": {}}}, "dataset.colums", "colums"),
        ({"dataset": None}, "dataset", "dataset"),
        ({"checkpoint": 3}, "checkpoint", "got 3, and job"),
        ({"checkpoint": -1}, "checkpoint", "checkpoint"),
        ({"checkpoint": "2"}, "checkpoint", "checkpoint"),
        ({"limit": 0}, "limit", "limit"),
        ({"limit": 10_001}, "limit", "limit"),
        ({"max_new_tokens": 0}, "max_new_tokens", "max_new_tokens"),
        ({"temperature": 2.1}, "temperature", "temperature"),
        ({"seed": -1}, "seed", "seed"),
        ({"top_p": 0.5}, "top_p", "top_p"),
    ],
)
def test_impossible_evaluation_is_refused_by_name(
    client: TestClient, job_id: str, wanted: dict[str, Any], param: str, said: str
) -> None:
    answer = evaluate(client, job_id, **wanted)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param), answer.text
    assert said in answer.json()["error"]["message"]
    assert client.get(f"/jobs/{job_id}/evaluations").json()["data"] == []


def test_job_without_an_adapter_is_refused(client: TestClient) -> None:
    answer = evaluate(client, post_job(client)["id"])
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "checkpoint")
    assert "which is queued, has no adapter; it has no checkpoint either" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("config", "said"),
    [({"bias": "all"}, "trains biases"), ({"target_parameters": ["experts.down_proj"]}, "adapts routed experts")],
)
def test_adapter_that_no_server_takes_is_refused(
    client: TestClient, sessions: Sessions, home: Path, config: dict[str, Any], said: str
) -> None:
    answer = evaluate(client, saved(sessions, home, config))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")
    assert said in answer.json()["error"]["message"]


def test_model_that_is_gone_is_refused(client: TestClient, job_id: str, home: Path) -> None:
    (home / "models" / "tiny").rename(home / "models" / "other")
    answer = evaluate(client, job_id)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "model")


def test_every_row_is_read_before_it_is_accepted(client: TestClient, job_id: str, home: Path) -> None:
    (home / "datasets" / "bad.jsonl").write_text(json.dumps(ROW) + '\n{"messages": 1}\n')
    answer = evaluate(client, job_id, dataset="bad.jsonl", limit=1)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "dataset")
    assert "row 2" in answer.json()["error"]["message"]


@pytest.mark.parametrize("evaluation", ["eval_" + "0" * 24, "no", "%00"])
def test_unknown_evaluation_is_404(client: TestClient, job_id: str, evaluation: str) -> None:
    url = f"/jobs/{job_id}/evaluations/{evaluation}"
    assert client.get(url).status_code == 404
    assert client.get(f"{url}/rows").status_code == 404
    assert client.delete(url).status_code == 404
    assert client.get(f"/jobs/{job_id}/evaluations?after={evaluation}").status_code == 404
    assert client.get(f"/evaluations?after={evaluation}").status_code == 404


def test_owners_see_only_their_own_evaluations(locked: TestClient, sessions: Sessions, home: Path) -> None:
    keys = {owner: bearer(make_key(locked, owner=owner)["secret"]) for owner in ("anna", "bob")}
    made = {}
    for owner, headers in keys.items():
        job_id = saved(sessions, home, owner=owner)
        answer = locked.post(f"/jobs/{job_id}/evaluations", json={"dataset": "rows.jsonl"}, headers=headers)
        assert answer.status_code == 202, answer.text
        made[owner] = answer.json()
    for owner, headers in keys.items():
        sha256 = {"dataset_sha256": made[owner]["dataset"]["sha256"]}
        assert locked.get("/evaluations", params=sha256, headers=headers).json()["data"] == [made[owner]]
    annas = made["anna"]
    url = f"/jobs/{annas['job_id']}/evaluations"
    for method, path in (
        ("POST", url),
        ("GET", url),
        ("GET", f"{url}/{annas['id']}"),
        ("DELETE", f"{url}/{annas['id']}"),
    ):
        body = {"dataset": "rows.jsonl"} if method == "POST" else None
        assert locked.request(method, path, json=body, headers=keys["bob"]).status_code == 404
    assert locked.get(f"/evaluations?after={annas['id']}", headers=keys["bob"]).status_code == 404


def test_evaluations_count_against_the_owners_limits(client: TestClient, job_id: str) -> None:
    client.put("/quotas/default", json={"queued_jobs": 1}).raise_for_status()
    made = evaluate(client, job_id).json()
    refused = error_of(evaluate(client, job_id), 429, "quota_exceeded")
    assert "default has 1 evaluations that are not done, and may have 1" in refused["message"]
    client.delete(f"/jobs/{job_id}/evaluations/{made['id']}").raise_for_status()
    assert evaluate(client, job_id).status_code == 202
    client.put("/quotas/default", json={"bytes": 0}).raise_for_status()
    assert "may keep 0" in error_of(evaluate(client, job_id), 429, "quota_exceeded")["message"]


def test_deleted_evaluation_takes_its_rows_along(client: TestClient, sessions: Sessions, job_id: str) -> None:
    made = evaluate(client, job_id).json()
    url = f"/jobs/{job_id}/evaluations/{made['id']}"
    with sessions.begin() as session:
        claimed = evaluations.next_due(session)
        assert claimed is not None
        evaluations.claim(session, claimed, "worker", LEASE)
        assert evaluations.add_row(session, claimed.id, 1, 1, {})
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    with sessions.begin() as session:
        assert evaluations.list_rows(session, made["id"]) == []
        assert not evaluations.add_row(session, made["id"], 1, 2, {})
        assert session.scalars(sa.select(Deletion.path)).all() == [f"{job_id}/evaluations/{made['id']}-1"]
