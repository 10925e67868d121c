from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from storage.backends import BucketStorage, FolderStorage
from store.jobs import deletion
from store.models import Job
from store.session import Sessions
from tests.support import s3
from tests.support.jobs import create_job
from tests.support.servers import free_port
from worker.publishing.cleaner import Cleaner
from worker.settings import WorkerSettings


def test_cleaner_deletes_what_was_deleted_and_what_is_due(
    sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = WorkerSettings(database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path)
    cleaner = Cleaner(sessions, settings, FolderStorage(tmp_path), lambda: False)
    deleted, old, kept = (create_job(sessions) for _ in range(3))
    states = {each: tmp_path / "runs" / each / "attempt-1" / "states" / "step-000002" for each in (deleted, old, kept)}
    for state in states.values():
        state.mkdir(parents=True)
        (state / "file").write_text("12345")
    ended = {"status": "cancelled", "attempt": 1, "finished_at": sa.func.now() - timedelta(days=31)}
    with sessions.begin() as session:
        session.execute(sa.update(Job).where(Job.id != kept).values(ended))
        deletion.delete_job(session, deleted)
    cleaner.delete_files()
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name == deleted] == []
    with caplog.at_level("INFO"):
        cleaner.clean()
    assert {each for each, state in states.items() if state.exists()} == {kept}
    assert "retention has deleted training_checkpoints: 1 of them, 5 bytes" in caplog.text


def test_deleted_job_leaves_no_fetched_adapter(
    sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings(database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path)
    cleaner = Cleaner(sessions, settings, BucketStorage(s3.BUCKET, ""), lambda: False)
    deleted, kept = (create_job(sessions) for _ in range(2))
    for job_id in (deleted, kept):
        (settings.fetched_adapters / "runs" / job_id / "attempt-1" / "adapter").mkdir(parents=True)
    with sessions.begin() as session:
        session.execute(sa.update(Job).where(Job.id == deleted).values(status="cancelled", finished_at=sa.func.now()))
        deletion.delete_job(session, deleted)
    with s3.running_s3(port):
        cleaner.delete_files()
    assert [path.name for path in (settings.fetched_adapters / "runs").iterdir()] == [kept]
