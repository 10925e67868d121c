"""Datasets as jobs read them."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from contract.status import JobStatus
from store.datasets import blob_key
from store.jobs import actions
from store.jobs.attempts import AttemptEnd, finish
from store.models import Job
from store.session import Sessions
from tests.support.api import ROWS_FILE, error_of, upload
from tests.support.jobs import RETRIES, claim


@pytest.mark.parametrize("wire", ["/datasets", "/v1/files"])
@pytest.mark.parametrize("state", ["queued", "running", "paused"])
def test_dataset_stays_until_its_job_has_ended(client: TestClient, sessions: Sessions, state: str, wire: str) -> None:
    dataset = upload(client)
    job = client.post("/jobs", json={"model": "tiny", "dataset": {"path": dataset["id"]}}).json()
    if state == "running":
        with sessions.begin() as session:
            assert claim(session)
    elif state == "paused":
        client.post(f"/jobs/{job['id']}/pause").raise_for_status()
    assert client.get(f"/jobs/{job['id']}").json()["status"] == state
    answer = client.delete(f"{wire}/{dataset['id']}")
    assert job["id"] in error_of(answer, 409, "dataset_in_use")["message"]
    assert answer.headers["x-should-retry"] == "false"
    with sessions.begin() as session:
        if state == "running":
            finish(session, job["id"], 1, AttemptEnd(JobStatus.CANCELLED), RETRIES)
        else:
            actions.cancel(session, job["id"])
    client.delete(f"{wire}/{dataset['id']}").raise_for_status()
    assert client.get(f"/jobs/{job['id']}").json()["recipe"]["dataset"]["path"] == dataset["id"]


def test_dataset_with_a_fault_is_not_trained_on(client: TestClient) -> None:
    dataset = upload(client, ROWS_FILE + b"{}\n")
    error = error_of(client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]}), 422, "dataset_invalid")
    assert error["param"] == "dataset"
    assert "row 2: " in error["message"]


def test_recipe_may_override_the_format_of_a_dataset(client: TestClient) -> None:
    dataset = upload(client, b'{"text": "a", "prompt": "b", "completion": "c"}\n')
    assert dataset["format"] == "prompt_completion"
    job = client.post("/jobs", json={"model": "tiny", "dataset": {"path": dataset["id"], "format": "text"}}).json()
    assert job["recipe"]["dataset"]["format"] == "text"
    answer = client.post("/jobs", json={"model": "tiny", "dataset": {"path": dataset["id"], "format": "alpaca"}})
    assert "row 1" in error_of(answer, 422, "dataset_invalid")["message"]
    answer = client.post("/jobs", json={"model": "tiny", "dataset": {"path": dataset["id"], "sha256": "0" * 64}})
    error_of(answer, 422, "dataset_changed")


PAIR = b'{"prompt": "hi", "chosen": "hello", "rejected": "go away"}\n'
RATED = b'{"prompt": "hi", "completion": "hello", "label": 1}\n{"prompt": "hi", "completion": "no", "label": 0}\n'


@pytest.mark.parametrize("route", ["/jobs", "/plans"])
@pytest.mark.parametrize("uploaded", [True, False])
def test_rows_must_have_what_the_method_learns(client: TestClient, home: Path, route: str, uploaded: bool) -> None:
    files = {"sft": ROWS_FILE, "dpo": PAIR, "kto": RATED}
    names = {}
    for method, content in files.items():
        (home / "datasets" / f"{method}.jsonl").write_bytes(content)
        names[method] = upload(client, content)["id"] if uploaded else f"{method}.jsonl"
    for method in files:
        for other, name in names.items():
            answer = client.post(route, json={"model": "tiny", "dataset": name, "method": method})
            if method == other or (method, other) == ("sft", "kto"):
                answer.raise_for_status()
            else:
                error = error_of(answer, 422, "dataset_invalid")
                assert error["message"].startswith(("the file is read as ", "row 1: "))
    recipe = {"model": "tiny", "dataset": names["dpo"], "method": "dpo", "evaluation": {"dataset": names["sft"]}}
    error = error_of(client.post(route, json=recipe), 422, "dataset_invalid")
    assert error["param"] == "evaluation.dataset"
    assert "has no pair" in error["message"]


def test_check_of_another_kind_does_not_decide(client: TestClient) -> None:
    rated = b'{"prompt": "hi", "completion": "hello", "label": true}\n{"prompt": "hi", "completion": "no"}\n'
    dataset = upload(client, rated)
    assert (dataset["status"], dataset["report"]["learned"]) == ("error", "ratings")
    client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"]}).raise_for_status()
    answer = client.post("/jobs", json={"model": "tiny", "dataset": dataset["id"], "method": "kto"})
    assert "has no rating" in error_of(answer, 422, "dataset_invalid")["message"]
    good = upload(client, rated.partition(b"\n")[0])
    answer = client.post("/jobs", json={"model": "tiny", "dataset": good["id"], "method": "kto"})
    assert "add some that are rated as bad" in error_of(answer, 422, "dataset_invalid")["message"]


def test_held_out_rows_may_be_a_dataset(client: TestClient, sessions: Sessions) -> None:
    training, held_out = upload(client, ROWS_FILE * 2), upload(client, ROWS_FILE * 3)
    recipe = {"model": "tiny", "dataset": training["id"], "evaluation": {"dataset": held_out["id"]}}
    job = client.post("/jobs", json=recipe).json()
    assert job["recipe"]["evaluation"]["dataset"]["sha256"] == held_out["sha256"]
    with sessions.begin() as session:
        row = session.get_one(Job, job["id"])
        assert (row.training_file, row.validation_file, row.examples) == (training["id"], held_out["id"], 6)
    assert job["id"] in error_of(client.delete(f"/datasets/{held_out['id']}"), 409, "dataset_in_use")["message"]
    bad = upload(client, b"{}")
    for evaluation, code in ((bad["id"], "dataset_invalid"), ("none.jsonl", "dataset_not_found")):
        recipe = {"model": "tiny", "dataset": "rows.jsonl", "evaluation": {"dataset": evaluation}}
        error = error_of(client.post("/jobs", json=recipe), 422, code)
        assert error["param"] == "evaluation.dataset"
        assert error["message"].startswith("evaluation.dataset: ")


@pytest.mark.parametrize("route", ["/jobs", "/plans"])
def test_dataset_without_its_bytes_is_refused(client: TestClient, home: Path, route: str) -> None:
    dataset = upload(client)
    client.post(route, json={"model": "tiny", "dataset": dataset["id"]}).raise_for_status()
    (home / blob_key(dataset["sha256"])).unlink()
    rows = {"dataset": "rows.jsonl", "evaluation": {"dataset": dataset["id"]}}
    for recipe, param in (({"dataset": dataset["id"]}, "dataset"), (rows, "evaluation.dataset")):
        error = error_of(client.post(route, json={"model": "tiny", **recipe}), 422, "dataset_not_found")
        assert error["param"] == param
        assert f"the bytes of {dataset['id']} are no longer in the storage; upload it again" in error["message"]
