"""A job's whole way through the API, the broker and a worker; the trainer is a process that trains nothing."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from tests.support.fake_trainer import losses
from tests.support.files import write_model
from tests.support.service import FAKE_TRAINER, SECRET_TOKEN, Service
from tests.support.waiting import until

pytestmark = pytest.mark.slow


def test_job_goes_from_the_queue_to_its_adapter(live: Service) -> None:
    job = live.submit(name="steps=3")
    assert job["status"] in ("queued", "running")  # a worker may be quicker than the answer
    done = live.wait(job["id"])
    assert (done["status"], done["attempt"], done["progress"]["step"]) == ("succeeded", 1, 3)
    metrics = live.client.get(f"/jobs/{job['id']}/metrics").json()
    assert metrics["columns"]["step"] == [1, 2, 3]
    assert metrics["columns"]["loss"] == losses(3)
    artifacts = live.client.get(f"/jobs/{job['id']}/artifacts").json()["data"]
    assert {(a["name"], a["kind"]) for a in artifacts} == {
        ("adapter.tar", "adapter"),
        ("trainer.log", "log"),
        ("metrics.csv", "metrics"),
        ("results.csv", "results"),
        ("loss.png", "curve"),
        ("README.md", "card"),
    }
    archive = live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar").content
    with tarfile.open(fileobj=BytesIO(archive)) as adapter:
        assert adapter.getnames() == ["adapter/README.md", "adapter/adapter_config.json", "adapter/loss.png"]
    assert "fake trainer speaks" in live.client.get(f"/jobs/{job['id']}/artifacts/trainer.log").text


@pytest.mark.exhaustive
def test_deleted_job_leaves_no_file(live: Service) -> None:
    job_id = live.submit()["id"]
    live.wait(job_id)
    assert (live.home / "runs" / job_id).exists()
    live.client.delete(f"/jobs/{job_id}").raise_for_status()
    assert live.client.get(f"/jobs/{job_id}/artifacts/adapter.tar").status_code == 404
    until(lambda: not (live.home / "runs" / job_id).exists())


@pytest.mark.parametrize("name", ["adapter.tar", "loss.png"])
def test_curl_resumes_a_broken_download(live: Service, tmp_path: Path, name: str) -> None:
    path = f"/jobs/{live.submit()['id']}"
    live.wait(path.rpartition("/")[2])
    (listed,) = (each for each in live.client.get(f"{path}/artifacts").json()["data"] if each["name"] == name)
    url = str(live.client.base_url.join(f"{path}/artifacts/{name}"))
    curl = ["curl", "--silent", "--show-error", "-C", "-", "-O", "-w", "%{http_code} %{size_download}", url]

    def download() -> tuple[int, int, str]:
        """The status, how many bytes came, and the digest of all that is there."""
        reported = subprocess.run(curl, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60).stdout
        status, came = map(int, reported.split())
        return status, came, hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()

    size, sha256 = listed["bytes"], listed["sha256"]
    assert download() == (200, size, sha256)
    os.truncate(tmp_path / name, size // 3)
    assert download() == (206, size - size // 3, sha256)
    # What is whole stays so: curl takes the refusal for what it is.
    status, _, digest = download()
    assert (status, digest) == (416, sha256)


def test_stream_has_each_event_once_and_resumes(live: Service) -> None:
    job = live.submit(name="steps=4 sleep=0.3")
    whole = [event for event in live.events(job["id"]) if event[0] != "queue"]
    kinds = [kind for kind, _, _ in whole]
    assert kinds == ["status", "status", "started", *["metric"] * 4, "checkpoint", "done", "status"]
    assert [data["status"] for kind, _, data in whole if kind == "status"] == ["queued", "running", "succeeded"]
    assert f"{FAKE_TRAINER} {live.run_dir(job['id']).path}" in live.job(job["id"])["command"]
    assert live.events(job["id"], last_event_id=whole[4][1]) == whole[5:]


def test_cancelling_a_running_job_leaves_no_process(live: Service) -> None:
    job_id = live.submit(name="steps=1000 sleep=0.1 orphan")["id"]
    live.wait_for_step(job_id, 2)
    orphan = int((live.run_dir(job_id).path / "orphan.pid").read_text())
    requested = live.client.post(f"/jobs/{job_id}/cancel").json()
    assert (requested["status"], requested["requested_action"]) == ("running", "cancel")
    assert live.wait(job_id)["status"] == "cancelled"
    assert live.processes(job_id) == []
    assert not Path(f"/proc/{orphan}").exists()


@pytest.mark.exhaustive
def test_stubborn_trainer_is_killed_after_its_grace(live: Service) -> None:
    live.stop_worker()
    live.start_worker(FINETUNED_GRACE="PT1S")
    job_id = live.submit(name="steps=1000 sleep=0.1 stubborn")["id"]
    live.wait_for_step(job_id, 2)
    live.client.post(f"/jobs/{job_id}/cancel")
    assert live.wait(job_id)["status"] == "cancelled"
    assert live.processes(job_id) == []


@pytest.mark.exhaustive
def test_forced_cancel_leaves_a_trainer_no_time(live: Service) -> None:
    job_id = live.submit(name="steps=1000 sleep=0.1 stubborn")["id"]
    live.wait_for_step(job_id, 2)
    live.ask("cancel?force=true", job_id)
    job = live.wait(job_id)
    assert job["status"] == "cancelled"
    assert any(process["killed"] for process in job["exit_report"]["processes"])
    assert live.processes(job_id) == []


@pytest.mark.exhaustive
def test_a_cancelled_job_keeps_the_exit_report_of_its_processes(live: Service) -> None:
    job_id = live.submit(name="steps=1000 sleep=0.1 ranks=2")["id"]
    live.wait_for_step(job_id, 2)
    before = set(live.processes(job_id))
    live.ask("cancel", job_id)
    exit_report = live.wait(job_id)["exit_report"]
    reported = {process["pid"] for process in exit_report["processes"]}
    assert len(reported & before) >= 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in reported)
    assert exit_report["seconds"] >= 0


def test_paused_job_frees_its_device_and_resumes(live: Service) -> None:
    job_id = live.submit(name="steps=40 sleep=0.1")["id"]
    live.wait_for_step(job_id, 3)
    live.ask("pause", job_id)
    assert live.wait(job_id, "paused")["devices"] == []
    assert live.processes(job_id) == []
    assert live.wait(live.submit(name="steps=1")["id"])["status"] == "succeeded"
    live.ask("resume", job_id)
    assert live.wait(job_id)["status"] == "succeeded"
    first, second = (started["resumed_step"] for started in live.reported(job_id, "started"))
    assert (first, second >= 3) == (0, True)
    assert live.metrics(job_id)["step"] == list(range(1, 41))


@pytest.mark.exhaustive
def test_failed_job_resumes_when_its_owner_retries(live: Service) -> None:
    job_id = live.submit(name="steps=6 every=2 fail=loss_not_finite once")["id"]
    assert live.wait(job_id)["status"] == "failed"
    live.ask("retry", job_id)
    job = live.wait(job_id, "succeeded", "running")
    job = live.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert [started["resumed_step"] for started in live.reported(job_id, "started")] == [0, 6]


def test_higher_priority_preempts_and_the_other_resumes(live: Service) -> None:
    low = live.submit(name="steps=40 sleep=0.1", scheduling={"preemptible": True})["id"]
    live.wait_for_step(low, 3)
    high = live.submit(name="steps=3", scheduling={"priority": 5})["id"]
    assert live.wait(high)["status"] == "succeeded"
    assert live.job(low)["status"] != "succeeded"
    assert live.wait(low)["status"] == "succeeded"
    assert live.reported(low, "started")[1]["resumed_step"] >= 3
    assert live.metrics(low)["step"] == list(range(1, 41))
    assert live.reported(low, "retry") == []


def test_trainer_that_is_killed_once_is_tried_again(live: Service) -> None:
    job_id = live.submit(name="steps=6 every=2 kill=9 once")["id"]
    job = live.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert [retry["code"] for retry in live.reported(job_id, "retry")] == ["trainer_killed"]


@pytest.mark.exhaustive
def test_job_without_room_retries_smaller_micro_batches(live: Service) -> None:
    job_id = live.submit(name="steps=3 fits=3", batch={"micro_batch_size": 8, "gradient_accumulation_steps": 2})["id"]
    assert live.wait(job_id)["status"] == "succeeded"
    reported = [(retry["micro_batch_size"], retry["effective_batch_size"]) for retry in live.reported(job_id, "retry")]
    assert reported == [(4, 16), (2, 16)]


def test_trainer_that_says_why_it_failed_is_quoted(live: Service) -> None:
    failure = live.wait(live.submit(name="fail=loss_not_finite")["id"])["failure"]
    assert failure["code"] == "loss_not_finite"
    assert failure["message"] == "as the recipe's name asks"
    assert "fake trainer speaks" in failure["log_tail"]


@pytest.mark.exhaustive
def test_killed_trainer_is_a_failure_that_says_so(live: Service) -> None:
    failure = live.wait(live.submit(name="kill=9")["id"])["failure"]
    assert failure["code"] == "trainer_killed"
    assert "SIGKILL" in failure["message"]
    assert failure["retryable"] is True


@pytest.mark.exhaustive
def test_silent_end_of_a_trainer_is_a_failure(live: Service) -> None:
    failure = live.wait(live.submit(name="exit=3")["id"])["failure"]
    assert failure["code"] == "trainer_crashed"
    assert "exit code 3" in failure["message"]


def test_repeated_bug_of_a_trainer_ends_its_job(live: Service) -> None:
    job = live.wait(live.submit(name="fail=trainer_crashed bug")["id"])
    assert (job["status"], job["attempt"]) == ("failed", 2)
    assert (job["failure"]["code"], job["failure"]["retryable"]) == ("internal_error", False)
    (retry,) = live.reported(job["id"], "retry")
    assert retry["fault"] == {"exception": "builtins.KeyError", "location": "fake_trainer.py:1 main", "step": 2}


@pytest.mark.exhaustive
def test_job_whose_model_vanished_fails_by_name(live: Service) -> None:
    live.stop_worker()
    write_model(live.home / "models" / "fleeting")
    job_id = live.submit(model="fleeting")["id"]
    shutil.rmtree(live.home / "models" / "fleeting")
    live.start_worker()
    failure = live.wait(job_id)["failure"]
    assert (failure["code"], failure["param"]) == ("model_not_found", "model")


@pytest.mark.exhaustive
def test_job_of_killed_worker_reruns_with_whole_metrics(live: Service) -> None:
    job_id = live.submit(name="steps=30 sleep=0.1")["id"]
    live.wait_for_step(job_id, 3)
    live.worker.kill()
    live.worker.wait()
    live.start_worker()
    job = live.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert live.client.get(f"/jobs/{job_id}/metrics").json()["columns"]["step"] == list(range(1, 31))
    assert live.processes(job_id) == []


@pytest.mark.exhaustive
def test_attempt_resumes_from_the_last_checkpoint(live: Service) -> None:
    job_id = live.submit(name="steps=30 every=4 sleep=0.1")["id"]
    live.wait_for_step(job_id, 6)
    live.worker.kill()
    live.worker.wait()
    live.start_worker()
    assert live.wait(job_id)["status"] == "succeeded"
    starts = [data["resumed_step"] for kind, _, data in live.events(job_id) if kind == "started"]
    assert starts[0] == 0
    assert starts[1] >= 4
    columns = live.client.get(f"/jobs/{job_id}/metrics").json()["columns"]
    assert columns["step"] == list(range(1, 31))
    assert columns["time"] == sorted(columns["time"])


def test_worker_told_to_stop_gives_its_job_back(live: Service) -> None:
    job_id = live.submit(name="steps=20 sleep=0.1")["id"]
    live.wait_for_step(job_id, 2)
    live.stop_worker()
    assert live.job(job_id)["status"] == "queued"
    assert live.processes(job_id) == []
    live.start_worker()
    assert live.wait(job_id)["status"] == "succeeded"


@pytest.mark.exhaustive
def test_worker_stopped_during_start_requeues_its_job(live: Service) -> None:
    job_id = live.submit(name="late=5 steps=1")["id"]
    live.wait(job_id, "running")
    live.stop_worker()
    assert live.job(job_id)["status"] == "queued"
    live.start_worker()
    assert live.wait(job_id)["status"] == "succeeded"


@pytest.mark.exhaustive
def test_unreadable_job_fails_and_blocks_nobody(live: Service, engine: sa.Engine) -> None:
    live.stop_worker()
    strange, sound = live.submit()["id"], live.submit()["id"]
    with engine.begin() as connection:
        statement = sa.text('UPDATE jobs SET recipe = \'{"of": "another age"}\' WHERE id = :id')
        connection.execute(statement, {"id": strange})
    live.start_worker()
    assert live.wait(strange)["failure"]["code"] == "recipe_invalid"
    assert live.wait(sound)["status"] == "succeeded"


@pytest.mark.exhaustive
def test_wake_up_that_was_lost_is_sent_again(live: Service) -> None:
    from redis import Redis

    first = live.submit(name="steps=10 sleep=0.1")["id"]
    second = live.submit(name="steps=1")["id"]
    with Redis(unix_socket_path=live.environment["FINETUNED_BROKER_URL"].removeprefix("redis+socket://")) as redis:
        redis.flushall()
    assert live.wait(first)["status"] == live.wait(second)["status"] == "succeeded"


def test_trainer_sees_no_secret_of_the_service(live: Service) -> None:
    job_id = live.submit(name="environment")["id"]
    live.wait(job_id)
    environment = json.loads((live.run_dir(job_id).path / "environment.json").read_text())
    assert "PATH" in environment
    assert {name for name in environment if name.startswith("FINETUNED")} <= {
        "FINETUNED_WORKER",
        "FINETUNED_RUN",
        "FINETUNED_CORES",
    }
    assert SECRET_TOKEN not in environment.values()


def test_fp16_values_reach_metrics_and_stream(live: Service) -> None:
    job_id = live.submit(name="steps=3 fp16")["id"]
    live.wait(job_id)
    columns = live.client.get(f"/jobs/{job_id}/metrics").json()["columns"]
    assert columns["grad_norm"] == [None, 1.0, 1.0]
    assert columns["loss_scale"] == [65536.0, 32768.0, 32768.0]
    assert columns["overflow"] == [True, False, False]
    reported = [data for kind, _, data in live.events(job_id) if kind == "metric"]
    assert [data["skipped_steps"] for data in reported] == columns["skipped_steps"] == [1, 1, 1]


def test_command_of_a_job_reruns_in_another_folder(live: Service, tmp_path: Path) -> None:
    job_id = live.submit(name="steps=2")["id"]
    live.wait(job_id)
    again = tmp_path / "again"
    again.mkdir()
    shutil.copy(live.run_dir(job_id).recipe, again)
    command = live.job(job_id)["command"].replace(str(live.run_dir(job_id).path), str(again))
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert (again / "adapter" / "adapter_config.json").is_file()


@pytest.mark.exhaustive
def test_recipe_in_the_run_folder_runs_by_hand(live: Service) -> None:
    job_id = live.submit()["id"]
    live.wait(job_id)
    recipe = httpx.Response(200, content=live.run_dir(job_id).recipe.read_bytes()).json()
    assert recipe["model"] == str(live.home / "models" / "tiny")
    assert recipe["dataset"]["path"] == str(live.home / "datasets" / "rows.jsonl")
    assert len(recipe["dataset"]["sha256"]) == 64
