"""Exports of what is deleted meanwhile."""

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from contract.events import CheckpointEvent
from contract.status import JobStatus
from storage.backends import FolderStorage
from store import artifacts, exports
from store.jobs import attempts, deletion, jobs
from store.jobs.attempts import AttemptEnd
from store.models import Deletion, Export
from store.session import Sessions
from tests.support.artifacts import publish
from tests.support.files import write_model
from tests.support.jobs import RETRIES, claim, make_recipe, record_events
from tests.support.waiting import until
from worker.publishing.exporter import Exporter
from worker.settings import WorkerSettings


@pytest.fixture
def exporter(sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str) -> Exporter:
    """Its merger never ends by itself."""
    write_model(tmp_path / "models" / "tiny")
    settings = WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker="worker",
        merger=["sleep", "1000"],
    )
    return Exporter(sessions, settings, FolderStorage(tmp_path), lambda: False)


@pytest.fixture
def job_id(sessions: Sessions, tmp_path: Path) -> str:
    """A job that has succeeded, and of which an export is requested."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        assert claim(session) is not None
    adapter = tmp_path / "runs" / artifacts.run_path(job_id, 1) / "adapter"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    record_events(sessions, job_id, CheckpointEvent(time=1, step=1, path="adapter", bytes=2, final=True))
    publish(sessions, tmp_path)
    with sessions.begin() as session:
        attempts.finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
        exports.request(session, job_id, "adapter.tar", None)
    return job_id


def test_export_of_a_deleted_adapter_fails_and_says_so(sessions: Sessions, exporter: Exporter, job_id: str) -> None:
    with sessions.begin() as session:
        assert deletion.delete_model(session, jobs.lock(session, job_id))
    assert exporter.export_next() is not None
    with sessions.begin() as session:
        (export,) = session.scalars(sa.select(Export))
    assert export.status == "failed"
    assert export.failure is not None
    assert export.failure["message"] == f"job {job_id} has no artifact adapter.tar"


def test_merger_of_a_deleted_job_is_ended(sessions: Sessions, exporter: Exporter, job_id: str, tmp_path: Path) -> None:
    thread = threading.Thread(target=exporter.export_next)
    thread.start()
    until(lambda: list((tmp_path / "runs" / job_id / "exports").glob("*/trainer.log")))
    with sessions.begin() as session:
        deletion.delete_job(session, job_id)
    thread.join(30)
    assert not thread.is_alive()
    with sessions.begin() as session:
        assert session.scalars(sa.select(Export)).all() == []
        assert session.scalars(sa.select(Deletion.path)).all() == [job_id]
