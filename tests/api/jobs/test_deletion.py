"""Jobs and their models are deleted with all that they have left."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from contract.events import CheckpointEvent
from contract.failure import InputError
from contract.status import JobStatus
from store import artifacts
from store.earlier_adapter import hold_earlier
from store.errors import JobInUse
from store.jobs import attempts, deletion, jobs
from store.jobs.attempts import AttemptEnd
from store.models import Artifact, Base, Deletion, Event, Export, Job, StepMetric
from store.scheduling import leases
from store.session import Sessions
from tests.support.api import ADMIN_KEY, bearer, error_of, make_key
from tests.support.artifacts import publish_rows
from tests.support.fake_trainer import metric
from tests.support.jobs import RETRIES, claim, make_recipe, record_events
from tests.support.waiting import until


@pytest.fixture
def ended(sessions: Sessions) -> str:
    """A job that has succeeded, with a row in every table."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(), "anna").id
        assert claim(session) is not None
    saved = CheckpointEvent(time=1, step=1, path="adapter", bytes=2, final=True)
    record_events(sessions, job_id, metric(1, 1, weight=1, attempt=1, fp16=False), saved)
    publish_rows(sessions)
    with sessions.begin() as session:
        attempts.finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
        export = {"format": "merged", "source": "adapter.tar", "status": "queued", "attempt": 0}
        session.add(Export(id="exp_" + "0" * 24, job_id=job_id, **export))
    return job_id


def deleted(sessions: Sessions) -> set[str]:
    """The paths whose bytes are to be deleted."""
    with sessions.begin() as session:
        return set(session.scalars(sa.select(Deletion.path)))


def start_another(sessions: Sessions, earlier: str) -> str:
    with sessions.begin() as session:
        hold_earlier(session, earlier)
        return jobs.create(session, make_recipe(adapter={"start_from": earlier}), start_from_job=earlier).id


def test_ended_job_is_deleted_with_all_its_rows(client: TestClient, sessions: Sessions, ended: str) -> None:
    assert client.delete(f"/jobs/{ended}").json() == {"id": ended, "deleted": True}
    assert client.get(f"/jobs/{ended}").status_code == 404
    assert client.delete(f"/jobs/{ended}").status_code == 404
    with sessions.begin() as session:
        for table in (Job, Event, StepMetric, Artifact, Export):
            assert session.scalar(sa.select(sa.func.count()).select_from(table)) == 0
    assert deleted(sessions) == {ended}
    (entry,) = client.get("/audit").json()["data"]
    assert (entry["action"], entry["target"]) == ("job.delete", ended)


def test_every_table_with_a_job_goes_with_it() -> None:
    """A table that is added later cannot keep rows of a deleted job, nor keep the job from being deleted."""
    to_jobs = [
        key for table in Base.metadata.sorted_tables for key in table.foreign_keys if key.column.table.name == "jobs"
    ]
    assert {key.ondelete for key in to_jobs} <= {"CASCADE", "SET NULL"}
    assert len(to_jobs) >= 6


@pytest.mark.parametrize("status", ["queued", "running", "paused"])
def test_unended_job_is_refused_with_advice(client: TestClient, sessions: Sessions, status: str) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        if status == "running":
            assert claim(session) is not None
    if status == "paused":
        client.post(f"/jobs/{job_id}/pause").raise_for_status()
    error = error_of(client.delete(f"/jobs/{job_id}"), 409, "job_in_use")
    assert error["message"] == f"job {job_id} is {status}; cancel it, and delete it once it has ended"
    assert client.get(f"/jobs/{job_id}").json()["status"] == status
    assert deleted(sessions) == set()


def test_job_with_processes_left_is_refused(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        assert claim(session) is not None
        session.execute(sa.update(Job).values(status="cancelled", lease_expires_at=None, finished_at=sa.func.now()))
    assert "on worker; delete it once" in error_of(client.delete(f"/jobs/{job_id}"), 409, "job_in_use")["message"]
    with sessions.begin() as session:
        leases.free(session, job_id, 1, "worker")
    assert client.delete(f"/jobs/{job_id}").status_code == 200


@pytest.mark.parametrize("what", ["job", "model"])
def test_job_that_another_starts_from_is_refused(client: TestClient, sessions: Sessions, ended: str, what: str) -> None:
    path = f"/jobs/{ended}" if what == "job" else f"/v1/models/ft:tiny:anna::{ended.removeprefix('job_')}"
    other = start_another(sessions, ended)
    message = error_of(client.delete(path), 409, "job_in_use")["message"]
    assert message.startswith("a job of another owner starts from")
    assert client.get(f"/jobs/{ended}/artifacts/adapter.tar/files/x").status_code == 404
    client.post(f"/jobs/{other}/cancel").raise_for_status()
    assert client.delete(path).status_code == 200
    assert client.get(f"/jobs/{other}").status_code == 200


def test_deleted_model_leaves_the_job_and_its_report(client: TestClient, sessions: Sessions, ended: str) -> None:
    name = f"ft:tiny:anna::{ended.removeprefix('job_')}"
    assert client.delete(f"/v1/models/{name}").json() == {"id": name, "object": "model", "deleted": True}
    assert deleted(sessions) == {f"{ended}/attempt-1/adapter"}
    assert client.get(f"/jobs/{ended}/artifacts").json()["data"] == []
    assert client.get(f"/jobs/{ended}/metrics").json()["columns"]["step"] == [1]
    assert client.delete(f"/v1/models/{name}").status_code == 404


@pytest.mark.parametrize("remove", [deletion.delete_job, lambda s, id: deletion.delete_model(s, jobs.lock(s, id))])
def test_adapter_is_not_deleted_while_a_job_is_posted(
    sessions: Sessions, ended: str, remove: Callable[[Session, str], object]
) -> None:
    """Whichever of the two is first, the other one waits for it and is refused."""
    with sessions.begin() as session:
        hold_earlier(session, ended)
        refused: list[BaseException] = []
        thread = threading.Thread(target=in_transaction, args=(sessions, remove, ended, refused))
        thread.start()
        until(lambda: is_blocked(sessions))
        jobs.create(session, make_recipe(), start_from_job=ended)
    thread.join()
    assert [type(error) for error in refused] == [JobInUse]
    with sessions.begin() as session:
        session.execute(sa.delete(Job).where(Job.id != ended))
    with sessions.begin() as session:
        remove(session, ended)
        thread = threading.Thread(target=in_transaction, args=(sessions, hold_earlier, ended, refused))
        thread.start()
        until(lambda: is_blocked(sessions))
    thread.join()
    assert [type(error) for error in refused] == [JobInUse, InputError]


def in_transaction(
    sessions: Sessions, work: Callable[[Session, str], object], job_id: str, errors: list[BaseException]
) -> None:
    try:
        with sessions.begin() as session:
            work(session, job_id)
    except (JobInUse, InputError) as error:
        errors.append(error)


def is_blocked(sessions: Sessions) -> bool:
    with sessions.begin() as session:
        return bool(session.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))


def test_owner_or_admin_alone_may_delete(locked: TestClient, ended: str) -> None:
    anna, bob = (bearer(make_key(locked, owner=name)["secret"]) for name in ("anna", "bob"))
    assert locked.delete(f"/jobs/{ended}", headers=bob).status_code == 404
    assert locked.get(f"/jobs/{ended}", headers=anna).status_code == 200
    assert locked.delete(f"/jobs/{ended}", headers=bearer(ADMIN_KEY)).status_code == 200


def test_stream_of_a_deleted_job_is_not_found(client: TestClient, home: Path, ended: str) -> None:
    client.delete(f"/jobs/{ended}").raise_for_status()
    assert client.get(f"/jobs/{ended}/events").status_code == 404
    assert client.get(f"/v1/files/file-{ended}").status_code == 404
    assert not (home / "runs" / artifacts.run_path(ended, 1)).exists()
