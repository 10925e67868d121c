from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from pydantic import SecretStr

from contract.machine import Machine
from contract.recipe import Recipe
from contract.status import JobStatus
from store import jobs, workers
from store.broker import make_celery, waiting_wakes
from store.session import Sessions, make_sessions
from worker.reaper import Reaper
from worker.settings import WorkerSettings

MACHINE = Machine(gpus=[], cores=3, cpu_bf16=False)
RECIPE = Recipe.model_validate({"model": "m", "dataset": "d"})


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, lease=timedelta(0)
    )


@pytest.fixture
def broker(settings: WorkerSettings) -> Celery:
    app = make_celery(settings)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge(app.conf.task_default_queue)
    return app


def create(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, RECIPE).id


def lose_worker(sessions: Sessions) -> None:
    with sessions.begin() as session:
        jobs.claim(session, "a worker that dies", lease=timedelta(seconds=-1))


def status(sessions: Sessions, job_id: str) -> JobStatus:
    with sessions.begin() as session:
        return jobs.get(session, job_id).status


def test_a_queued_job_without_a_wake_up_gets_one_and_only_one(
    sessions: Sessions, broker: Celery, settings: WorkerSettings
) -> None:
    for _ in range(3):
        create(sessions)
    reaper = Reaper(sessions, broker, settings, MACHINE)
    for _ in range(2):
        reaper.round()
        assert waiting_wakes(broker) == 3


def test_a_job_that_lost_its_worker_is_released_although_the_broker_is_away(
    sessions: Sessions, settings: WorkerSettings, tmp_path: Path
) -> None:
    job_id = create(sessions)
    lose_worker(sessions)
    away = settings.model_copy(update={"broker_url": SecretStr(f"redis+socket://{tmp_path}/none.sock")})
    Reaper(sessions, make_celery(away), settings, MACHINE).round()
    assert status(sessions, job_id) is JobStatus.QUEUED


def test_each_round_tells_what_the_machine_has_although_the_broker_is_away(
    sessions: Sessions, settings: WorkerSettings, tmp_path: Path
) -> None:
    away = settings.model_copy(update={"broker_url": SecretStr(f"redis+socket://{tmp_path}/none.sock")})
    Reaper(sessions, make_celery(away), settings, MACHINE).round()
    with sessions.begin() as session:
        assert workers.machines(session) == [MACHINE]


def test_after_the_database_was_away_every_worker_has_the_time_of_a_lease_to_come_back(
    sessions: Sessions, broker: Celery, settings: WorkerSettings
) -> None:
    job_id = create(sessions)
    lose_worker(sessions)
    Reaper(sessions, broker, settings.model_copy(update={"lease": timedelta(hours=1)}), MACHINE).round()
    assert status(sessions, job_id) is JobStatus.RUNNING


def test_a_database_that_is_away_does_not_end_the_reaper(
    broker: Celery, settings: WorkerSettings, tmp_path: Path
) -> None:
    engine = sa.create_engine(f"postgresql+psycopg://finetuned@/finetuned?host={tmp_path}")
    Reaper(make_sessions(engine), broker, settings, MACHINE).round()
