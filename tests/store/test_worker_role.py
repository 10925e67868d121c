from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from contract.events import CheckpointEvent
from migrations import worker_role
from store import artifacts, kept_adapters
from store.jobs import jobs
from store.scheduling import memory
from store.session import Sessions
from tests.support.jobs import make_recipe
from tests.support.service import as_worker_role


@pytest.fixture
def worker(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(as_worker_role(database_url))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("query", ["SELECT * FROM keys", "SELECT secret FROM webhooks", "SELECT * FROM audit"])
def test_workers_role_reads_no_secret(worker: sa.Engine, query: str) -> None:
    with worker.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(sa.text(query))


@pytest.mark.parametrize("change", ["DELETE FROM jobs", "INSERT INTO keys (id) VALUES ('key')", "DROP TABLE jobs"])
def test_workers_role_changes_no_more_than_a_worker(worker: sa.Engine, change: str) -> None:
    with worker.connect() as connection, pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
        connection.execute(sa.text(change))


def test_workers_role_records_memory_and_deletes_old_readings(worker: sa.Engine) -> None:
    with Session(worker) as session:
        memory.prune(session)
        memory.record(session, "gpu-a", {memory.MACHINE: 5})
        assert [reading.used_bytes for reading in memory.read(session, "gpu-a", 0, 10)] == [5]


def test_workers_role_deletes_older_adapters(worker: sa.Engine, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(checkpointing={"keep_adapters": 1})).id
        for step in (2, 4):
            path = f"step-{step}"
            artifacts.add_checkpoint(session, job_id, 1, CheckpointEvent(time=1, step=step, path=path, bytes=1))
        session.execute(sa.text("UPDATE artifacts SET published_at = now(), files = '[]', sha256 = ''"))
    with Session(worker) as session:
        kept_adapters.delete_older(session, job_id)
        assert [each.name for each in artifacts.list_published(session, job_id)] == ["checkpoint-4.tar"]


def test_rights_are_granted_again_with_a_new_password(database_url: str, engine: sa.Engine, worker: sa.Engine) -> None:
    stored = sa.text("SELECT rolpassword FROM pg_authid WHERE rolname = :role").bindparams(role=worker_role.ROLE)
    with engine.begin() as connection:
        connection.execute(sa.text("GRANT SELECT ON keys TO finetuned_worker"))
        before = connection.scalar(stored)
    worker_role.grant(database_url, "it's new")
    with engine.begin() as connection:
        after = connection.scalar(stored)
    assert before != after
    assert after.startswith("SCRAM-SHA-256$")
    with worker.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
        connection.execute(sa.text("SELECT * FROM keys"))
