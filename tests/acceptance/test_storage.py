"""Jobs and datasets whose bytes are kept in a bucket, with a real server that speaks S3's language."""

import fcntl
import hashlib
import json
import shutil
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.recipe import Recipe
from store.session import Sessions
from tests.support import s3
from tests.support.files import ROW, add_model_and_dataset, write_tokenizer
from tests.support.servers import free_port
from tests.support.service import FAKE_TRAINER, Service, running
from tests.support.waiting import until

pytestmark = pytest.mark.slow

LEASE = 3


@pytest.fixture
def bucket() -> int:
    """The port that it answers at, once it is started."""
    return free_port()


def settings(port: int) -> dict[str, str]:
    return {
        "FINETUNED_STORAGE": f"s3://{s3.BUCKET}/ours",
        "FINETUNED_TRAINER": f"{sys.executable} -P {FAKE_TRAINER}",
        "FINETUNED_LEASE": f"PT{LEASE}S",
        **s3.environment(port),
    }


@pytest.mark.exhaustive
def test_artifacts_are_stored_in_the_bucket(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    with s3.running_s3(bucket), running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit(name="steps=4 every=2 environment")
        assert live.wait(job["id"])["status"] == "succeeded"
        environment = (live.run_dir(job["id"]).path / "environment.json").read_text()
        assert "AWS_" not in environment
        assert s3.SECRET not in environment
        shutil.rmtree(tmp_path / "runs")
        base = f"/jobs/{job['id']}/artifacts"
        listed = {each["name"]: each for each in live.client.get(base).json()["data"]}
        saved = {"adapter.tar", "checkpoint-2.tar", "checkpoint-4.tar"}
        assert set(listed) == saved | {"trainer.log", "metrics.csv", "results.csv", "loss.png", "README.md"}
        for name, each in listed.items():
            whole = live.client.get(f"{base}/{name}").content
            assert (len(whole), hashlib.sha256(whole).hexdigest()) == (each["bytes"], each["sha256"])
            part = live.client.get(f"{base}/{name}", headers={"range": "bytes=3-"})
            assert (part.status_code, part.content) == (206, whole[3:])
        with tarfile.open(fileobj=BytesIO(live.client.get(f"{base}/adapter.tar").content)) as archive:
            assert archive.getnames() == ["adapter/README.md", "adapter/adapter_config.json", "adapter/loss.png"]
        # A model that the server does not have, so that the fake adapter's shapes are nobody's affair.
        again = live.submit(model="org/name", adapter={"start_from": job["id"]})
        assert live.wait(again["id"])["status"] == "succeeded"
        fetched = live.run_dir(again["id"]).path / "start_from" / "adapter_config.json"
        assert fetched.read_text() == "{}"
        live.client.delete(f"/jobs/{job['id']}").raise_for_status()
        kept = f"http://127.0.0.1:{bucket}/{s3.BUCKET}?list-type=2&prefix=ours/runs/"
        until(lambda: job["id"] not in httpx.get(kept).text and again["id"] in httpx.get(kept).text)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert s3.SECRET not in logs


@pytest.mark.exhaustive
def test_job_succeeds_when_the_bucket_is_there_again(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    with running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit()
        until(lambda: live.run_dir(job["id"]).adapter.is_dir())
        until(lambda: "publishing failed, retry" in (tmp_path / "worker.log").read_text())
        reported = live.job(job["id"])
        assert (reported["status"], reported["devices"]) == ("running", [])
        with s3.running_s3(bucket):
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
            assert live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar").is_success
        answer = live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")


@pytest.mark.exhaustive
def test_worker_stops_while_the_bucket_is_away(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    with running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit()
        until(lambda: "publishing failed, retry" in (tmp_path / "worker.log").read_text())
        live.stop_worker()
        with s3.running_s3(bucket):
            live.start_worker("another")
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
            assert live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar").is_success


@pytest.mark.exhaustive
def test_artifacts_of_killed_worker_are_published_later(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    with running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit(name="steps=4 every=2")
        until(lambda: live.run_dir(job["id"]).adapter.is_dir())
        live.kill_worker()
        with s3.running_s3(bucket):
            live.start_worker("another")
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
            base = f"/jobs/{job['id']}/artifacts"
            names = [each["name"] for each in live.client.get(base).json()["data"]]
            assert "checkpoint-2.tar" in names
            assert all(live.client.get(f"{base}/{name}").is_success for name in names)


ROWS = "".join(json.dumps(ROW) + "\n" for _ in range(20)).encode()
SHA256 = hashlib.sha256(ROWS).hexdigest()
KEY = f"ours/blobs/{SHA256[:2]}/{SHA256}"


def upload(live: Service) -> dict[str, Any]:
    """The dataset, once it is checked."""
    answer = live.client.post("/datasets", files={"file": ("rows.jsonl", ROWS)})
    assert answer.status_code == 201, answer.text
    path = f"/datasets/{answer.json()['id']}"
    dataset = until(lambda: (found := live.client.get(path).json())["status"] != "uploaded" and found)
    assert dataset["status"] == "processed", dataset
    return dict(dataset)


def in_bucket(url: str) -> str:
    return httpx.get(f"{url}/{s3.BUCKET}?list-type=2").text


def is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.exhaustive
def test_dataset_is_read_and_deleted_in_the_bucket(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    write_tokenizer(tmp_path / "models" / "tiny")
    cache = tmp_path / "cache" / "datasets"
    with s3.running_s3(bucket) as url, running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        dataset = upload(live)
        path = f"/datasets/{dataset['id']}"
        assert dataset["report"]["examples"] == 20
        assert f"<Key>{KEY}</Key>" in in_bucket(url)
        copies = [each for each in tmp_path.rglob("*") if each.is_file() and each.read_bytes() == ROWS]
        assert copies == [cache / SHA256]
        shutil.rmtree(cache)
        assert live.client.get(f"{path}/content").content == ROWS
        preview = live.client.get(f"{path}/preview", params={"model": "tiny"}).json()
        assert "hello" in preview["data"][0]["texts"][0]["text"]
        shutil.rmtree(cache)
        job = live.submit(dataset=dataset["id"], name="steps=10000 sleep=0.05")
        live.wait_for_step(job["id"], 1)
        trained_on = Recipe.model_validate_json(live.run_dir(job["id"]).recipe.read_bytes()).dataset
        assert (trained_on.path, trained_on.sha256) == (str(cache / SHA256), SHA256)
        assert Path(trained_on.path).read_bytes() == ROWS
        assert is_held(cache / SHA256)
        assert refused(live.client.delete(path)) == (409, "dataset_in_use")
        live.ask("cancel", job["id"])
        assert live.wait(job["id"])["status"] == "cancelled"
        until(lambda: not is_held(cache / SHA256))
        assert live.client.delete(path).status_code == 200
        assert KEY not in in_bucket(url)
        assert not (cache / SHA256).exists()


@pytest.mark.exhaustive
def test_job_survives_a_slow_fetch_of_its_dataset(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    cache = tmp_path / "cache" / "datasets"
    with s3.running_s3(bucket), running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        dataset = upload(live)
        (cache / SHA256).unlink()
        with (cache / f"lock-{SHA256[:2]}").open("w") as fetching:
            fcntl.flock(fetching, fcntl.LOCK_EX)
            # A model that the server does not have, so that the API does not need the rows, too.
            job = live.submit(model="org/name", dataset=dataset["id"])
            live.wait(job["id"], "running")
            time.sleep(3 * LEASE)
        ended = live.wait(job["id"])
    assert (ended["status"], ended["attempt"]) == ("succeeded", 1)


@pytest.mark.exhaustive
def test_job_waits_for_an_unavailable_bucket(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    socket = tmp_path / "s3.sock"
    with s3.unreachable_s3(socket), running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        with s3.reachable_s3(socket, bucket):
            dataset = upload(live)
        shutil.rmtree(tmp_path / "cache")
        job = live.submit(dataset=dataset["id"])
        until(lambda: live.job(job["id"])["attempt"] == 2)
        reported = live.job(job["id"])
        assert (reported["retries"], reported["failure"]) == (0, None)
        with s3.reachable_s3(socket, bucket):
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
        assert {each["code"] for each in live.reported(job["id"], "retry")} == {"storage_unavailable"}


@pytest.mark.exhaustive
def test_no_dataset_is_lost_without_the_bucket(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    add_model_and_dataset(tmp_path)
    away = (503, "storage_unavailable")
    with running(tmp_path, database_url, broker_url, workers=(), **settings(bucket)) as live:
        assert refused(live.client.post("/datasets", files={"file": ("rows.jsonl", ROWS)})) == away
        assert live.client.get("/datasets").json()["data"] == []
        assert not [each for each in tmp_path.rglob("*") if each.is_file() and each.read_bytes() == ROWS]
        with s3.running_s3(bucket):
            path = f"/datasets/{upload(live)['id']}"
        assert refused(live.client.get(f"{path}/content")) == away
        assert refused(live.client.delete(path)) == away
        assert live.client.get(path).json()["status"] == "processed"
        # The new server has nothing of what the one before had.
        with s3.running_s3(bucket):
            gone = live.client.get(f"{path}/content")
            assert "upload it again" in gone.json()["error"]["message"]
            upload(live)
            assert live.client.get(f"{path}/content").content == ROWS
