"""Jobs whose artifacts are kept in a bucket, with a real server that speaks S3's language."""

import hashlib
import shutil
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from store.session import Sessions
from tests import s3
from tests.service import FAKE_TRAINER, free_port, furnish, running, until


@pytest.fixture
def bucket() -> int:
    """The port that it answers at, once it is started."""
    return free_port()


def settings(port: int) -> dict[str, str]:
    return {
        "FINETUNED_STORAGE": f"s3://{s3.BUCKET}/ours",
        "FINETUNED_TRAINER": f"{sys.executable} {FAKE_TRAINER}",
        "FINETUNED_LEASE": "PT3S",
        **s3.environment(port),
    }


def test_what_a_job_leaves_is_in_the_bucket_and_downloaded_from_there(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    furnish(tmp_path)
    with s3.running_s3(bucket), running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit(name="steps=4 every=2 environment")
        assert live.wait(job["id"])["status"] == "succeeded"
        environment = (live.run_dir(job["id"]).path / "environment.json").read_text()
        assert "AWS_" not in environment
        assert s3.SECRET not in environment
        shutil.rmtree(tmp_path / "runs")
        base = f"/jobs/{job['id']}/artifacts"
        listed = {each["name"]: each for each in live.client.get(base).json()["data"]}
        saved = {"adapter.tar.gz", "checkpoint-2.tar.gz", "checkpoint-4.tar.gz"}
        assert set(listed) == saved | {"trainer.log", "metrics.csv", "loss.png", "README.md"}
        for name, each in listed.items():
            whole = live.client.get(f"{base}/{name}").content
            assert (len(whole), hashlib.sha256(whole).hexdigest()) == (each["bytes"], each["sha256"])
            part = live.client.get(f"{base}/{name}", headers={"range": "bytes=3-"})
            assert (part.status_code, part.content) == (206, whole[3:])
        with tarfile.open(fileobj=BytesIO(live.client.get(f"{base}/adapter.tar.gz").content)) as archive:
            assert archive.getnames() == ["adapter/README.md", "adapter/adapter_config.json", "adapter/loss.png"]
        # A model that the server does not have, so that the fake adapter's shapes are nobody's affair.
        again = live.submit(model="org/name", adapter={"start_from": job["id"]})
        assert live.wait(again["id"])["status"] == "succeeded"
        fetched = live.run_dir(again["id"]).path / "start_from" / "adapter_config.json"
        assert fetched.read_text() == "{}"
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert s3.SECRET not in logs


@pytest.mark.exhaustive
def test_a_job_succeeds_when_the_bucket_is_there_again(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    furnish(tmp_path)
    with running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit()
        until(lambda: live.run_dir(job["id"]).adapter.is_dir())
        until(lambda: "waits" in (tmp_path / "worker.log").read_text())
        told = live.job(job["id"])
        assert (told["status"], told["devices"]) == ("running", [])
        with s3.running_s3(bucket):
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
            assert live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar.gz").is_success
        answer = live.client.get(f"/jobs/{job['id']}/artifacts/adapter.tar.gz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_unavailable")


@pytest.mark.exhaustive
def test_what_a_killed_worker_had_not_published_is_published_by_the_next(
    tmp_path: Path, database_url: str, broker_url: str, sessions: Sessions, bucket: int
) -> None:
    furnish(tmp_path)
    with running(tmp_path, database_url, broker_url, **settings(bucket)) as live:
        job = live.submit(name="steps=4 every=2")
        until(lambda: live.run_dir(job["id"]).adapter.is_dir())
        live.kill_worker()
        with s3.running_s3(bucket):
            live.start_worker("another")
            assert live.wait(job["id"], seconds=60)["status"] == "succeeded"
            base = f"/jobs/{job['id']}/artifacts"
            names = [each["name"] for each in live.client.get(base).json()["data"]]
            assert "checkpoint-2.tar.gz" in names
            assert all(live.client.get(f"{base}/{name}").is_success for name in names)
