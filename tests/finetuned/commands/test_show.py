import json
from typing import Any

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi, job

RECIPE = {"model": "smollm2", "dataset": {"path": "dataset_1", "filename": "rows.jsonl"}}
FAILED: dict[str, Any] = {
    "recipe": RECIPE,
    "attempt": 3,
    "retries": 2,
    "failure": {"code": "out_of_memory", "message": "The device is full."},
    "progress": {"step": 3, "total_steps": 9, "epoch": 0.5, "loss": 1.25, "eval_loss": 1.5},
}


def test_job_is_shown_in_lines(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job("failed") | FAILED)
    done = finetuned("show", "job_1", "--url", api.url, COLUMNS="100")
    assert done.stderr == f"next: finetuned retry job_1 --url {api.url}\n"
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "\u25cf failed a name job_1"
    assert [line for line in lines[1:] if not line.startswith("times created")] == [
        "owner anna",
        "model smollm2",
        "dataset rows.jsonl",
        "step 3/9, epoch 0.50",
        "loss 1.2500, evaluation 1.5000",
        "attempts 3, 2 of them after a failure",
        "failure out_of_memory: The device is full.",
    ]


def test_rewards_are_shown_after_losses(api: FakeApi) -> None:
    progress = FAILED["progress"] | {"reward_accuracy": 0.75, "reward_margin": 0.5}
    api.answers["GET /jobs/job_1"] = (200, job("failed") | FAILED | {"progress": progress})
    shown = " ".join(finetuned("show", "job_1", "--url", api.url, COLUMNS="100").stdout.split())
    assert "loss 1.2500, evaluation 1.5000, reward accuracy 75%, margin 0.500" in shown


def test_waiting_job_shows_its_reason(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job("queued"))
    done = finetuned("show", "job_1", "--url", api.url, COLUMNS="100")
    assert "number 3 in the queue. The job waits for 1 GPU." in done.stdout
    assert "finetuned watch job_1" in done.stderr


def test_status_of_a_newer_service_is_shown(api: FakeApi) -> None:
    api.answers["GET /jobs/job_1"] = (200, job("hibernating"))
    done = finetuned("show", "job_1", "--url", api.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hibernating" in done.stdout


def test_job_is_printed_as_json(api: FakeApi) -> None:
    found = job("failed") | FAILED
    api.answers["GET /jobs/job_1"] = (200, found)
    assert json.loads(finetuned("show", "job_1", "--json", "--url", api.url).stdout) == found
