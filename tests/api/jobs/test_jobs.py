import json
import re
import socket
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.errors import install
from api.settings import ApiSettings
from contract.events import parse_event
from runtime.broker import QUEUE, SCHEDULE, make_celery
from store.jobs import jobs, progress
from store.models import Job
from store.session import Sessions
from tests.support.api import post_job, serve
from tests.support.files import ROW, write_dataset
from tests.support.jobs import RECIPE, claim

PUBLISHER_GIVES_UP = 5
"""Seconds in which a publisher has surely given up on a broker: half of what a consumer waits."""


def refused(client: TestClient, status: int, code: str, **recipe: Any) -> dict[str, Any]:
    answer = client.post("/jobs", json={**RECIPE, **recipe})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert set(error) == {"code", "message", "param", "type"}
    assert re.fullmatch(r"req_\w+", answer.headers["x-request-id"])
    assert client.get("/jobs").json()["data"] == []
    return error


def test_new_job_has_defaults_and_a_dataset_digest(client: TestClient) -> None:
    job = post_job(client)
    assert (job["status"], job["attempt"], job["retries"], job["requested_action"]) == ("queued", 0, 0, None)
    assert (job["owner"], job["priority"], job["devices"]) == ("default", 0, [])
    assert (job["not_before"], job["batch"], job["exit_report"]) == (None, None, None)
    assert job["recipe"]["adapter"]["r"] == 16
    assert re.fullmatch(r"[0-9a-f]{64}", job["recipe"]["dataset"]["sha256"])
    assert {**client.get(f"/jobs/{job['id']}").json(), "queue": None} == job


def test_job_shows_its_command_and_receipt(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    zeros = {**dict.fromkeys(progress.METRIC_COLUMNS, 0), "type": "metric", "step": 6}
    done = {"type": "done", "time": 1, "step": 6, "completed": True, "stopped_early": True, "best_step": 4}
    reported = [parse_event(json.dumps(event)) for event in (zeros, {**done, "train_loss": 1, "eval_loss": 1})]
    lease = timedelta(minutes=1)
    with sessions.begin() as session:
        claim(session, lease)
        jobs.launch(session, job_id, 1, "torchrun -m trainer /run", lease)
        progress.record(session, job_id, 1, reported, lease)
    job = client.get(f"/jobs/{job_id}").json()
    assert job["command"] == "torchrun -m trainer /run"
    assert (job["progress"]["stopped_early"], job["progress"]["best_step"]) == (True, 4)


def test_job_is_of_the_owner_that_sends_it(client: TestClient) -> None:
    answer = client.post("/jobs", json=RECIPE, headers={"x-owner": "anna.b_c@d-e"})
    assert answer.json()["owner"] == "anna.b_c@d-e"


@pytest.mark.parametrize("owner", ["", "a b", "a/b", "\u00e9".encode(), "x" * 101])
def test_owner_that_is_no_name_is_refused(client: TestClient, owner: str | bytes) -> None:
    answer = client.post(
        "/jobs", json=RECIPE, headers={b"x-owner": owner if isinstance(owner, bytes) else owner.encode()}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_parameter", "x-owner")
    assert "1 to 100 letters" in error["message"]


def test_job_shows_its_examples_and_expected_time(client: TestClient, sessions: Sessions, engine: sa.Engine) -> None:
    def post_two_epochs() -> Job:
        job_id = post_job(client, schedule={"epochs": 2})["id"]
        with sessions.begin() as session:
            return jobs.get(session, job_id)

    first = post_two_epochs()
    assert (first.examples, first.expected_seconds) == (6, None)
    with engine.begin() as connection:
        ended = "status = 'succeeded', attempt = 1, started_at = now() - interval '12 s', finished_at = now()"
        connection.execute(sa.text(f"UPDATE jobs SET {ended}"))
    assert post_two_epochs().expected_seconds == pytest.approx(12)


def test_job_that_was_taken_wakes_the_workers(client: TestClient, settings: ApiSettings) -> None:
    with make_celery(settings).connection_for_read() as connection, connection.SimpleQueue(QUEUE) as messages:
        messages.clear()
        post_job(client)
        assert messages.get(timeout=5).headers["task"] == SCHEDULE


def test_malformed_body_is_told_where(client: TestClient) -> None:
    answer = client.post("/jobs", content='{"model": ')
    assert answer.status_code == 422
    assert "not JSON" in answer.json()["error"]["message"]


def test_unknown_field_is_named(client: TestClient) -> None:
    assert refused(client, 422, "recipe_invalid", lora_rank=8)["param"] == "lora_rank"


def test_missing_data_file_is_named(client: TestClient) -> None:
    error = refused(client, 422, "dataset_not_found", dataset="nowhere.jsonl")
    assert "nowhere.jsonl" in error["message"]


def test_empty_data_file_is_refused(client: TestClient, home: Path) -> None:
    (home / "datasets" / "empty.jsonl").touch()
    assert "no rows" in refused(client, 422, "dataset_invalid", dataset="empty.jsonl")["message"]


def test_row_57_without_an_answer_is_named(client: TestClient, home: Path) -> None:
    rows = [ROW] * 56 + [{"messages": ROW["messages"][:1]}]
    (home / "datasets" / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert refused(client, 422, "dataset_invalid", dataset="bad.jsonl")["message"].startswith("row 57: has no answer")


def test_csv_columns_are_mapped_and_checked(client: TestClient, home: Path) -> None:
    (home / "datasets" / "faq.csv").write_text("question,answer\nSay hello.,hello\n")
    wrong = {"path": "faq.csv", "columns": {"instruction": "query", "output": "answer"}}
    error = refused(client, 422, "dataset_invalid", dataset=wrong)
    assert error["param"] == "dataset.columns"
    assert "question, answer" in error["message"]
    right = {"path": "faq.csv", "columns": {"instruction": "question", "output": "answer"}}
    assert post_job(client, dataset=right)["recipe"]["dataset"]["columns"] == right["columns"]


def test_missing_model_folder_is_refused_with_alternatives(client: TestClient) -> None:
    assert "models there: tiny" in refused(client, 422, "model_not_found", model="huge")["message"]


def test_unmatched_target_modules_are_refused_with_names(client: TestClient) -> None:
    error = refused(client, 422, "target_modules_unmatched", adapter={"target_modules": ["query_key_value"]})
    assert error["param"] == "adapter.target_modules"
    assert "q_proj, up_proj" in error["message"]


def test_digest_that_is_not_the_files_is_refused(client: TestClient) -> None:
    refused(client, 422, "dataset_changed", dataset={"path": "rows.jsonl", "sha256": "0" * 64})


def test_recipe_of_more_than_a_megabyte_is_refused(client: TestClient) -> None:
    answer = client.post("/jobs", content=b" " * 1_000_001)
    assert answer.status_code == 413
    assert "1000000 bytes" in answer.json()["error"]["message"]


def test_broker_that_is_away_loses_no_job(settings: ApiSettings, sessions: Sessions, tmp_path: Path) -> None:
    away = settings.model_copy(update={"broker_url": SecretStr(f"redis+socket://{tmp_path}/none.sock")})
    assert_taken_soon(away)


def test_broker_that_never_answers_keeps_nobody_waiting(settings: ApiSettings, sessions: Sessions) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        address = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        assert_taken_soon(settings.model_copy(update={"broker_url": SecretStr(address)}))


def assert_taken_soon(settings: ApiSettings) -> None:
    with serve(settings) as client:
        began = time.monotonic()
        job = post_job(client)
        assert time.monotonic() - began < PUBLISHER_GIVES_UP
        assert client.get(f"/jobs/{job['id']}").json()["status"] == "queued"


def test_unavailable_database_gives_one_error_shape(settings: ApiSettings, tmp_path: Path) -> None:
    url = SecretStr(f"postgresql+psycopg://finetuned@/finetuned?host={tmp_path}")
    with serve(settings.model_copy(update={"database_url": url})) as client:
        answer = client.get("/jobs", headers={"x-request-id": "mine"})
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.headers["x-request-id"] == "mine"


def test_exhausted_connections_give_the_same_error_shape() -> None:
    app = FastAPI()
    install(app)

    @app.get("/")
    def busy() -> None:
        raise sa.exc.TimeoutError("QueuePool limit")

    answer = TestClient(app).get("/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")


@pytest.mark.parametrize("path", ["", "/metrics", "/events", "/samples", "/artifacts", "/artifacts/adapter.tar"])
@pytest.mark.parametrize("job_id", ["job_none", "%00", "job_" + "0" * 24, "job_" + "0" * 24 + "%0A", "x" * 5000])
def test_unknown_job_is_404_everywhere(client: TestClient, job_id: str, path: str) -> None:
    answer = client.get(f"/jobs/{job_id}{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert len(answer.text) < 500
    for what in ("cancel", "pause", "resume", "retry"):
        assert client.post(f"/jobs/{job_id}/{what}").status_code == 404


@pytest.mark.parametrize("after", ["job_none", "", "%00"])
def test_page_after_no_job_is_404(client: TestClient, after: str) -> None:
    assert client.get(f"/jobs?after={after}").status_code == 404


def test_unknown_path_and_method_give_one_shape(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"]["code"] == "not_found"
    answer = client.delete("/jobs")
    assert (answer.json()["error"]["code"], answer.headers["allow"]) == ("method_not_allowed", "GET, POST")


def test_parameter_out_of_range_is_named(client: TestClient) -> None:
    error = client.get("/jobs?limit=1000").json()["error"]
    assert (error["code"], error["param"]) == ("invalid_parameter", "limit")


@pytest.mark.parametrize(
    "query",
    [
        "since_step=99999999999",
        "since_step=-1",
        "limit=0",
        "points=x",
        "points=1",
        "columns=loss,none",
        "to_step=-1",
        "limit=" + "9" * 5000,
    ],
)
def test_metrics_parameter_out_of_range_is_named(client: TestClient, query: str) -> None:
    answer = client.get(f"/jobs/{post_job(client)['id']}/metrics?{query}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_parameter", query.split("=")[0])
    assert len(answer.text) < 500


@pytest.mark.parametrize("name", ["x" * 256, "loop.jsonl"])
def test_unusable_dataset_path_is_named(client: TestClient, home: Path, name: str) -> None:
    (home / "datasets" / "loop.jsonl").symlink_to("loop.jsonl")
    refused(client, 422, "dataset_not_found", dataset=name)
    refused(client, 422, "model_not_found", model=name)


def test_row_that_is_no_text_is_shown_printable(client: TestClient, home: Path) -> None:
    (home / "datasets" / "half.jsonl").write_text('{"messages": "\\ud800"}')
    assert "\\ud800" in refused(client, 422, "dataset_invalid", dataset="half.jsonl")["message"]


def test_data_file_larger_than_is_allowed_is_refused(settings: ApiSettings, sessions: Sessions) -> None:
    with serve(settings.model_copy(update={"largest_dataset": 10})) as client:
        message = refused(client, 422, "dataset_invalid")["message"]
    assert "larger than 10 bytes" in message


def test_pages_follow_one_another(client: TestClient, home: Path) -> None:
    write_dataset(home / "datasets" / "rows.jsonl")
    ids = [post_job(client)["id"] for _ in range(3)][::-1]
    first = client.get("/jobs?limit=2").json()
    second = client.get(f"/jobs?limit=2&after={ids[1]}").json()
    assert [job["id"] for job in first["data"] + second["data"]] == ids
    assert (first["has_more"], second["has_more"]) == (True, False)


def test_recipe_schema_is_published(client: TestClient) -> None:
    schema = client.get("/recipe-schema").json()
    assert schema["required"] == ["model", "dataset"]
    assert "requestBody" in client.get("/openapi.json").json()["paths"]["/jobs"]["post"]
