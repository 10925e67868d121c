"""An attempt whose inputs lie in a bucket, with a real server that speaks S3's language."""

import hashlib
import shutil
from pathlib import Path

import pytest

from contract.status import JobStatus
from storage.backends import Storage, make_storage
from store import datasets
from store.datasets import Source, blob_key
from store.jobs import attempts
from store.session import Sessions
from tests import s3
from tests.service import free_port
from tests.worker.attempt.beginning import CPU, create, get, place, run, run_dir, run_next, told
from worker.attempt import lifecycle
from worker.attempt.lifecycle import Attempt
from worker.settings import WorkerSettings

PORT = free_port()


@pytest.fixture
def in_bucket(settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch) -> WorkerSettings:
    for name, value in s3.environment(PORT).items():
        monkeypatch.setenv(name, value)
    return settings.model_copy(update={"storage": f"s3://{s3.BUCKET}"})


def uploaded(sessions: Sessions, settings: WorkerSettings) -> tuple[str, str, Path]:
    """A dataset's id, its key and its bytes, which are not in the bucket yet."""
    path = settings.home / "datasets" / "rows.jsonl"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with sessions.begin() as session:
        source = Source(path.stat().st_size, sha256=sha256)
        return datasets.create(session, "default", path.name, source).id, blob_key(sha256), path


def saved(sessions: Sessions, settings: WorkerSettings, storage: Storage) -> str:
    """A job whose adapter is in the bucket alone."""
    job = run(sessions, settings)
    adapter = run_dir(settings, job).adapter
    for path in adapter.iterdir():
        storage.put_file(f"runs/{adapter.relative_to(settings.runs)}/{path.name}", path)
    shutil.rmtree(settings.runs / job.id)
    return job.id


def test_an_attempt_whose_bucket_is_away_is_made_again_as_often_as_it_takes_and_counts_as_no_retry(
    sessions: Sessions, in_bucket: WorkerSettings
) -> None:
    dataset, key, path = uploaded(sessions, in_bucket)
    job_id = create(sessions, dataset=dataset)
    tries = in_bucket.max_retries + 2
    for _ in range(tries):
        job = run_next(sessions, in_bucket, job_id)
        assert (job.status, job.retries, job.failed_step) == (JobStatus.QUEUED, 0, None)
    retries = told(sessions, job_id, "retry")
    assert [retry["code"] for retry in retries] == ["storage_unavailable"] * tries
    assert "storage" in retries[0]["message"]
    assert key not in retries[0]["message"]
    with s3.running_s3(PORT):
        make_storage(in_bucket).put_file(key, path)
        assert run_next(sessions, in_bucket, job_id).status is JobStatus.SUCCEEDED


def test_the_lease_is_looked_after_while_an_earlier_adapter_is_fetched(
    sessions: Sessions, settings: WorkerSettings, in_bucket: WorkerSettings
) -> None:
    """It is renewed; where it is lost the rest is not fetched, and nothing is trained."""
    with s3.running_s3(PORT):
        start_from = saved(sessions, settings, make_storage(in_bucket))
        job = run_next(sessions, in_bucket, create(sessions, adapter={"start_from": start_from}))
        assert job.status is JobStatus.SUCCEEDED
        assert (run_dir(settings, job).path / "start_from" / "adapter_config.json").exists()
        create(sessions, adapter={"start_from": start_from})
        part = place(sessions)
        with sessions.begin() as session:
            attempts.lost(session, part.job_id, part.attempt, settings.retries)
        lifecycle.run(Attempt(sessions, in_bucket, CPU, part, lambda: False))
    lost = run_dir(settings, get(sessions, part.job_id))
    assert list(lost.path.iterdir()) == [lost.path / "start_from"]
    assert list((lost.path / "start_from").iterdir()) == []
