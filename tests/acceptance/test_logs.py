"""What the parts of the service write while they work."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import service
from tests.support.files import add_model_and_dataset
from tests.support.service import Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PLANTED = "sk-ft-planted0123456789"


@pytest.mark.exhaustive
def test_log_lines_are_json_without_secrets(tmp_path: Path, database_url: str, broker_url: str) -> None:
    with_password = database_url.replace("//finetuned@", "//finetuned:planted-password@")
    assert with_password != database_url
    add_model_and_dataset(tmp_path)
    wants = {
        "FINETUNED_WEBHOOK_ALLOW_PRIVATE": "true",
        "FINETUNED_LOG_FORMAT": "json",
        "FINETUNED_ADMIN_KEY": "planted-admin-key-of-some-length",
    }
    wants["FINETUNED_WEBHOOK_ALLOW_PRIVATE"] = "true"
    trainer = {"FINETUNED_TRAINER": f"{sys.executable} -P {service.FAKE_TRAINER}", "HF_TOKEN": "hf_planted0123456789"}
    with service.running(tmp_path, with_password, broker_url, **wants, **trainer) as live:
        headers = {
            "x-request-id": "req_of_a_test",
            "authorization": "Bearer " + PLANTED.replace("-ft", ""),
            "x-owner": "anna",
        }
        answer = live.client.post(
            "/jobs", json={"model": "tiny", "dataset": "rows.jsonl", "name": "steps=1000 sleep=0.1"}, headers=headers
        )
        job_id = answer.raise_for_status().json()["id"]
        refused = live.client.get("/jobs", params={"token": PLANTED}, headers={"authorization": f"Bearer {PLANTED}"})
        assert refused.status_code == 401
        live.client.put("/secrets/mlflow", json={"value": "planted-token"}).raise_for_status()
        tracker = {"url": "http://127.0.0.1:9", "secret": "mlflow"}
        recipe = {"model": "tiny", "dataset": "rows.jsonl", "name": "steps=1", "tracking": {"mlflow": tracker}}
        tracked = live.client.post("/jobs", json=recipe).raise_for_status().json()["id"]
        until(lambda: live.job(tracked)["tracking"][0]["status"] == "retrying")
        secret = live.client.post("/webhooks", json={"url": "https://example.com"}).json()["secret"]
        live.wait(job_id, "running")
        live.ask("cancel", job_id)
        live.wait(job_id)
        reported = told_of_a_failure_with_a_secret(live)
    assert "planted" not in reported
    api, worker = ((tmp_path / f"{part}.log").read_text() for part in ("api", "worker"))
    for text in (api, worker):
        assert "planted" not in text
        assert secret not in text
    lines: list[dict[str, Any]] = [json.loads(line) for line in api.splitlines()]
    assert all({"time", "level", "event", "logger"} <= set(line) for line in lines)
    (posted,) = [line for line in lines if line.get("request_id") == "req_of_a_test"]
    assert posted["method"] == "POST"
    assert (posted["route"], posted["status"], posted["owner"]) == ("/jobs", 201, "anna")
    assert [line["job_id"] for line in lines if line.get("route") == "/jobs/{job_id}/cancel"] == [job_id]
    # Celery tells a signal past all logs.
    words = {"", "worker: Warm shutdown (MainProcess)"}
    records: list[dict[str, Any]] = [json.loads(line) for line in worker.splitlines() if line not in words]
    assert any(line["logger"].startswith("celery") for line in records)
    assert any((line.get("job_id"), line.get("attempt")) == (job_id, 1) for line in records)


def told_of_a_failure_with_a_secret(live: Service) -> str:
    """All that can be had of a job whose trainer writes its token wherever it can."""
    job = live.submit(name="steps=1 leak fail=loss_not_finite")
    failure = live.wait(job["id"])["failure"]
    path = f"/jobs/{job['id']}"
    until(lambda: live.client.get(f"{path}/artifacts/trainer.log").status_code == 200)  # published after the end
    pages = [
        live.client.get(path).text,
        json.dumps(live.events(job["id"])),
        live.client.get(f"/v1/fine_tuning{path}").text,
        live.client.get(f"/v1/fine_tuning{path}/events").text,
        live.client.get(f"{path}/artifacts/trainer.log").text,
    ]
    # What is a secret is taken out, and no more.
    assert failure["message"] == "as the recipe's name asks, with hf_***"
    assert all("hf_***" in page for page in pages)
    return "".join(pages)
