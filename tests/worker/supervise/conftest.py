"""A worker's settings, its broker, and processes that may stand for its pool."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import Celery
from pydantic import SecretStr

from runtime.broker import make_celery, make_publisher
from store import artifacts
from tests.worker.supervise.rounds import received
from worker.settings import WorkerSettings
from worker.supervise.process import marks


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    """Whoever is not heard of is lost at once."""
    return WorkerSettings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        home=tmp_path,
        worker="host-1",
        lease=timedelta(0),
        grace=timedelta(0),
    )


@pytest.fixture
def broker(settings: WorkerSettings) -> Celery:
    app = make_celery(settings)
    received(app)
    return app


@pytest.fixture
def no_broker(settings: WorkerSettings, tmp_path: Path) -> Celery:
    url = SecretStr(f"redis+socket://{tmp_path}/none.sock")
    return make_publisher(settings.model_copy(update={"broker_url": url}))


@pytest.fixture
def start(settings: WorkerSettings) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(of_job: str | None = None) -> "subprocess.Popen[bytes]":
        """A process of the pool, or of the first attempt at a job."""
        run = settings.runs / artifacts.run_path(of_job or "-", 1)
        started.append(subprocess.Popen(["sleep", "1000"], env=marks("host-1", run) if of_job else {}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
