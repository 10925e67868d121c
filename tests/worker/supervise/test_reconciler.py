"""What each round of the reconciler reports and sends."""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery

from api.workers import worker_out
from contract.status import JobStatus
from store import schema
from store.jobs import jobs, transitions
from store.models import Worker
from store.scheduling import memory, scheduler, workers
from store.session import Sessions, make_sessions
from tests.support.jobs import create_job
from tests.support.waiting import until
from tests.worker.supervise.rounds import (
    MACHINE,
    NEVER,
    Start,
    leased,
    make_reconciler,
    received,
    rounds_until,
    run_here,
    run_on_a_silent_worker,
    status,
)
from worker.settings import WorkerSettings
from worker.supervise.reconciler import Reconciler


def test_first_round_reports_the_machine(sessions: Sessions, broker: Celery, settings: WorkerSettings) -> None:
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    with sessions.begin() as session:
        ((worker, heard),) = workers.list_workers(session)
        assert (worker.name, heard, worker.draining) == ("host-1", True, False)
        assert workers.list_machines(session) == [MACHINE]
        worker.seen_at -= NEVER / 2
    reconciler.round()
    with sessions.begin() as session:
        assert workers.alive_names(session) == {"host-1"}


def test_first_round_records_the_memory_in_use(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    job_id = run_here(sessions, start().pid)
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    reconciler.round()
    with sessions.begin() as session:
        (reading,) = memory.read(session, "host-1", 0, 10)
        (holding,) = memory.holdings(session, "host-1", 0)
    assert (reading.device, holding.jobs) == (memory.MACHINE, [job_id])
    assert reading.used_bytes > 2**20


def test_draining_worker_gets_no_job(sessions: Sessions, broker: Celery, settings: WorkerSettings) -> None:
    job_id = create_job(sessions)
    make_reconciler(sessions, broker, settings, draining=lambda: True).round()
    with sessions.begin() as session:
        assert workers.draining_names(session) == {"host-1"}
    assert not leased(sessions, job_id)


def test_leaving_worker_stays_listed_with_devices(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    pool = start()
    run_here(sessions, pool.pid)
    with sessions.begin() as session:
        assert workers.alive_names(session) == {"host-1"}
    again = make_reconciler(sessions, broker, settings, draining=lambda: True)
    again.round()
    again.leave()
    with sessions.begin() as session:
        assert workers.alive_names(session) == {"host-1"}
    pool.kill()
    pool.wait()
    again.round()
    again.leave()
    with sessions.begin() as session:
        assert workers.list_workers(session) == []


def test_no_round_follows_when_a_worker_has_left(sessions: Sessions, broker: Celery, settings: WorkerSettings) -> None:
    def known() -> list[str]:
        with sessions.begin() as session:
            return [worker.name for worker, _ in workers.list_workers(session)]

    reconciler = make_reconciler(sessions, broker, settings)
    rounds = threading.Thread(target=reconciler.run)
    rounds.start()
    until(lambda: known() == ["host-1"])
    reconciler.leave()
    rounds.join(20)
    assert not rounds.is_alive()
    assert known() == []


def test_waiting_job_is_placed_and_sent_again(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, start: Start
) -> None:
    job_id = create_job(sessions)
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    assert set(received(broker)) == {(job_id, 1)}
    reconciler.round()
    assert received(broker) == [(job_id, 1)]
    with sessions.begin() as session:
        assert transitions.begin(session, job_id, 1, "host-1", start().pid, NEVER) is not None
    reconciler.round()
    assert received(broker) == []


def test_broker_that_is_away_stops_no_other_duty(
    sessions: Sessions, no_broker: Celery, settings: WorkerSettings
) -> None:
    """However often its messages fail, those who are not heard of in the time of a lease are lost."""
    lost, waiting = run_on_a_silent_worker(sessions), create_job(sessions)
    reconciler = make_reconciler(sessions, no_broker, settings.model_copy(update={"lease": timedelta(seconds=0.3)}))
    reconciler.round()
    assert status(sessions, lost) is JobStatus.RUNNING
    assert leased(sessions, waiting)
    rounds_until(reconciler, lambda: status(sessions, lost) is JobStatus.QUEUED)
    with sessions.begin() as session:
        assert workers.alive_names(session) == {"host-1"}


def test_workers_return_after_a_database_outage(
    sessions: Sessions, broker: Celery, settings: WorkerSettings, database_url: str
) -> None:
    url = sa.make_url(database_url)
    with tempfile.TemporaryDirectory() as folder:
        way = Path(folder) / "way"
        way.symlink_to(str(url.query["host"]))
        through = sa.create_engine(url.update_query_dict({"host": str(way)}), poolclass=sa.NullPool)
        lease = 2.0
        reconciler = make_reconciler(
            make_sessions(through), broker, settings.model_copy(update={"lease": timedelta(seconds=lease)})
        )
        lost = run_on_a_silent_worker(sessions)
        rounds_until(reconciler, lambda: status(sessions, lost) is JobStatus.QUEUED)
        lost = run_on_a_silent_worker(sessions, "silent too")
        way.unlink()
        reconciler.round()
        way.symlink_to(str(url.query["host"]))
        back = time.monotonic()
        rounds_until(reconciler, lambda: status(sessions, lost) is JobStatus.QUEUED)
        assert time.monotonic() - back >= lease


def test_replaced_reconciler_ends_its_worker(sessions: Sessions, settings: WorkerSettings) -> None:
    script = (
        "from tests.support.jobs import cpu\n"
        "from runtime.broker import make_publisher\n"
        "from store.session import make_engine, make_sessions\n"
        "from runtime.settings import read_settings\n"
        "from worker.supervise.reconciler import Reconciler\n"
        "from worker.settings import WorkerSettings\n"
        "settings = read_settings(WorkerSettings)\n"
        "sessions = make_sessions(make_engine(settings))\n"
        "Reconciler(sessions, make_publisher(settings), settings, cpu(1), lambda: False).run()\n"
    )
    environment = {
        "FINETUNED_DATABASE_URL": settings.database_url.get_secret_value(),
        "FINETUNED_BROKER_URL": settings.broker_url.get_secret_value(),
        "FINETUNED_HOME": str(settings.home),
        "FINETUNED_WORKER": "host-1",
    }

    def heard() -> set[str]:
        with sessions.begin() as session:
            return workers.alive_names(session)

    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.PIPE) as superseded:
        until(lambda: heard() == {"host-1"})
        with sessions.begin() as session:
            workers.register(session, "host-1", "another", "localhost", MACHINE)
        _, said = superseded.communicate(timeout=20)
    assert superseded.returncode == -signal.SIGTERM
    assert b"another worker has begun as host-1" in said


def test_low_disk_is_reported_and_holds_up_new_attempts(
    sessions: Sessions, broker: Celery, settings: WorkerSettings
) -> None:
    def heartbeat(reconciler: Reconciler) -> str | None:
        """The reason why the job waits, after the heartbeat of a worker that has just started."""
        reconciler.measure_disk()
        reconciler.round()
        with sessions.begin() as session:
            job = jobs.get(session, job_id)
            return scheduler.outlook(session, [job])[job_id].reason

    job_id = create_job(sessions)
    too_much = settings.model_copy(update={"disk_reserve": 1 << 60})
    reason = heartbeat(make_reconciler(sessions, broker, too_much))
    assert reason == "The job waits for disk space: host-1 has less than 1152921504.6 GB free."
    assert received(broker) == []
    with sessions.begin() as session:
        row = session.get_one(Worker, "host-1")
        assert row.disk is not None
        assert (row.low_disk, row.disk["low"], row.disk["reserve_bytes"]) == (True, True, 1 << 60)
        assert 0 < row.disk["free_bytes"] < row.disk["total_bytes"]
    assert heartbeat(make_reconciler(sessions, broker, settings)) == "The job is about to start on host-1."
    assert {each for each, _ in received(broker)} == {job_id}


@pytest.fixture
def migrated(engine: sa.Engine) -> Iterator[None]:
    """The database has the schema of a later version."""
    set_revision = sa.text("UPDATE alembic_version SET version_num = :revision")
    with engine.begin() as connection:
        connection.execute(set_revision, {"revision": "20990101_later"})
    yield
    with engine.begin() as connection:
        connection.execute(set_revision, {"revision": schema.HEAD})


def test_outdated_worker_is_named_and_gets_no_job(
    migrated: None, sessions: Sessions, broker: Celery, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = create_job(sessions)
    reconciler = make_reconciler(sessions, broker, settings)
    reconciler.round()
    reconciler.round()
    (record,) = [each for each in caplog.records if "this program is outdated" in each.message]
    assert record.levelname == "ERROR"
    with sessions.begin() as session:
        ((worker, alive),) = workers.list_workers(session)
        shown = worker_out(worker, alive, workers.list_devices(session), [], [])
        assert scheduler.schedule(session) == []
        assert jobs.get(session, job_id).status is JobStatus.QUEUED
    assert shown.status == "draining"
    assert [device.status for device in shown.devices] == ["unavailable"] * 2
    assert "20990101_later" in str(shown.devices[0].reason)


def test_worker_takes_jobs_when_the_schema_is_its_own_again(
    migrated: None, sessions: Sessions, broker: Celery, settings: WorkerSettings, engine: sa.Engine
) -> None:
    reconciler = make_reconciler(sessions, broker, settings)
    for revision, draining in (("20990101_later", True), (schema.HEAD, False)):
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :new"), {"new": revision})
        reconciler.send_heartbeat()
        with sessions.begin() as session:
            assert workers.draining_names(session) == ({"host-1"} if draining else set())
            assert {device.external_processes is None for device in workers.list_devices(session)} == {not draining}
