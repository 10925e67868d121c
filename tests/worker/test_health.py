"""The health check of a worker, as a container runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from store.scheduling import workers
from store.session import Sessions
from tests.support.jobs import cpu
from worker.health import problem
from worker.settings import WorkerSettings


@pytest.fixture
def settings(sessions: Sessions, tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    with sessions.begin() as session:
        workers.register(session, "host-1", "first", "localhost", cpu(1))
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, worker="host-1"
    )


@pytest.mark.parametrize(("name", "code"), [("host-1", 0), ("host-2", 1)])
def test_check_exits_with_0_only_for_a_living_worker(settings: WorkerSettings, name: str, code: int) -> None:
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": settings.database_url.get_secret_value(),
        "FINETUNED_BROKER_URL": settings.broker_url.get_secret_value(),
        "FINETUNED_HOME": str(settings.home),
        "FINETUNED_WORKER": name,
    }
    command = [sys.executable, "-m", "worker.health"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert ("sent no heartbeat for 30 s" in done.stderr) == bool(code)


def test_silent_worker_is_not_healthy(settings: WorkerSettings, engine: sa.Engine) -> None:
    assert problem(settings) is None
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '31 s'"))
    assert "sent no heartbeat" in str(problem(settings))


def test_worker_without_its_servers_is_not_healthy(settings: WorkerSettings, tmp_path: Path) -> None:
    no_broker = settings.model_copy(update={"broker_url": SecretStr(f"redis+socket://{tmp_path}/none.sock")})
    assert "the broker does not answer" in str(problem(no_broker))
    no_database = SecretStr(f"postgresql+psycopg://nobody@/none?host={tmp_path}")
    assert "the database does not answer" in str(problem(settings.model_copy(update={"database_url": no_database})))
