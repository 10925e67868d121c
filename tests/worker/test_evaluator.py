"""Evaluations whose adapters and rows are in a bucket."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, SecretStr

from contract.evaluation import EvaluatedExample, EvaluationEnd, ModelAnswer
from contract.events import CheckpointEvent
from contract.failure import Failure, FailureCode
from contract.recipe import DatasetSource
from storage.backends import BucketStorage
from store import artifacts, evaluations
from store.evaluations import NewEvaluation
from store.models import InferenceServer, JobEvaluation
from store.scheduling import workers
from store.session import Sessions
from tests.support import s3
from tests.support.artifacts import publish, write_adapter_config
from tests.support.inference_server import FakeInferenceServer, inference_server
from tests.support.jobs import cpu, create_job
from tests.support.servers import free_port
from worker.evaluating import evaluator
from worker.evaluating.evaluator import Evaluator
from worker.settings import WorkerSettings


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "rows.jsonl").write_text("{}\n")
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, worker="worker"
    )


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketStorage]:
    port = free_port()
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    with s3.running_s3(port):
        yield BucketStorage(s3.BUCKET, "")


@pytest.fixture
def server(sessions: Sessions) -> Iterator[FakeInferenceServer]:
    with inference_server() as fake:
        with sessions.begin() as session:
            workers.register(session, "worker", "first", "localhost", cpu(1))
            fake.add(session, "worker")
        yield fake


@pytest.fixture
def evaluation(sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage) -> JobEvaluation:
    """Of an adapter that is in the bucket alone."""
    job_id = create_job(sessions, model="tiny")
    write_adapter_config(settings.home, job_id, "adapter")
    with sessions.begin() as session:
        event = CheckpointEvent(time=1, step=5, path="adapter", bytes=2, final=True)
        artifacts.add_checkpoint(session, job_id, 1, event)
    publish(sessions, settings.home, bucket)
    shutil.rmtree(settings.runs / job_id)
    wanted = {"limit": 3, "max_length": 9, "max_new_tokens": 9, "temperature": 0.0, "seed": 0}
    with sessions.begin() as session:
        adapter = artifacts.get(session, job_id, artifacts.ADAPTER)
        new = NewEvaluation(adapter, DatasetSource(path="rows.jsonl", sha256="0" * 64), wanted, 3)
        return evaluations.create(session, job_id, new, None)


def example(number: int) -> EvaluatedExample:
    answer = ModelAnswer(loss=float(number), answer="four", finish="stop")
    return EvaluatedExample(
        number=number, prompt="?", reference="four", supervised_tokens=1, base=answer, adapter=answer
    )


def evaluated(sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage) -> JobEvaluation:
    Evaluator(sessions, settings, bucket, lambda: False).evaluate_next()
    with sessions.begin() as session:
        return session.scalars(sa.select(JobEvaluation)).one()


def test_rows_of_several_pages_become_one_file_in_the_bucket(  # parameters: fixtures
    sessions: Sessions,
    settings: WorkerSettings,
    bucket: BucketStorage,
    server: FakeInferenceServer,
    evaluation: JobEvaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "_PAGE", 2)
    server.lines = [example(1), example(2), example(3), EvaluationEnd(dropped=0)]
    done = evaluated(sessions, settings, bucket)
    assert done.status == "succeeded", done.failure or done.waits
    assert done.scores
    assert (done.scores["examples"], done.scores["base"]["loss"]) == (3, 2.0)
    with sessions.begin() as session:
        made = artifacts.get(session, done.job_id, f"{done.id}.jsonl")
    lines = b"".join(bucket.read(artifacts.key(made))).splitlines()
    assert [json.loads(line)["number"] for line in lines] == [1, 2, 3]
    assert not (settings.runs / made.path).parent.exists()


def test_adapter_gone_from_the_cache_is_fetched_again(  # parameters: fixtures
    sessions: Sessions,
    settings: WorkerSettings,
    bucket: BucketStorage,
    server: FakeInferenceServer,
    evaluation: JobEvaluation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluator, "_SECONDS_BETWEEN_USES", 0)

    def lines() -> Iterator[BaseModel]:
        yield example(1)
        shutil.rmtree(settings.fetched_adapters)
        yield example(2)

    server.lines = lines()
    waiting = evaluated(sessions, settings, bucket)
    assert waiting.status == "queued"
    assert "no longer in the worker's cache" in (waiting.waits or "")


def put_off(sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage, times: int, **server: object) -> Any:
    """The evaluation, after so many turns. Its server has been in its state for some seconds each time."""
    for _ in range(times):
        evaluated(sessions, settings, bucket)
        with sessions.begin() as session:
            ago = sa.func.now() - timedelta(minutes=1)
            session.execute(
                sa.update(InferenceServer).values(changed_at=sa.func.now() - timedelta(seconds=6), **server)
            )
            session.execute(sa.update(JobEvaluation).values(turn_at=ago))
    with sessions.begin() as session:
        return session.scalars(sa.select(JobEvaluation)).one()


def test_waiting_for_a_device_is_no_attempt(
    sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage, evaluation: JobEvaluation
) -> None:
    waiting = put_off(sessions, settings, bucket, times=8)
    assert (waiting.status, waiting.attempt, waiting.breaks) == ("queued", 0, 0)
    assert "no device is free to evaluate with tiny" in waiting.waits


def test_server_that_never_starts_fails_its_evaluation(
    sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage, evaluation: JobEvaluation
) -> None:
    broken = Failure(code=FailureCode.OUT_OF_MEMORY, message="too large").model_dump(mode="json")
    failed = put_off(sessions, settings, bucket, times=6, state="failed", failure=broken)
    assert (failed.status, failed.attempt, failed.breaks) == ("failed", 0, 5)
    assert "too large" in failed.failure["message"]


def test_model_that_cannot_be_loaded_fails_its_evaluation(
    sessions: Sessions, settings: WorkerSettings, bucket: BucketStorage, evaluation: JobEvaluation
) -> None:
    broken = Failure(code=FailureCode.MODEL_UNSUPPORTED, message="no llama").model_dump(mode="json")
    failed = put_off(sessions, settings, bucket, times=2, state="failed", failure=broken)
    assert (failed.status, failed.attempt, failed.failure["code"]) == ("failed", 0, "model_unsupported")
