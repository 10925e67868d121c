"""The live table of jobs while the database is away, and with clients that do not read."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.background.job_table import TablePace
from runtime.settings import StoreSettings
from store.jobs import actions
from store.session import Sessions, make_engine, make_sessions
from tests.api.background.tables import ADMIN, Table, run, running
from tests.support.events import metric
from tests.support.jobs import begin, create_job, record_events, register
from tests.support.servers import Servers, running_servers
from tests.support.service import migrate

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def servers(servers_folder: Path) -> Iterator[Servers]:
    folder = servers_folder / "table"
    folder.mkdir()
    with running_servers(folder) as servers:
        yield servers


def cancel(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        actions.cancel(session, job_id)


def test_outage_of_the_database_ends_no_table(servers: Servers, caplog: pytest.LogCaptureFixture) -> None:
    """Each client gets what changed before and after it, once: `take` refuses what the page has already."""
    migrate(servers.database.url)
    settings = StoreSettings(
        database_url=SecretStr(servers.database.url), broker_url=SecretStr("redis://x"), home=Path("/tmp")
    )
    engine = make_engine(settings)
    sessions = make_sessions(engine)

    async def test() -> None:
        before, after, kept = (create_job(sessions) for _ in range(3))
        async with running(sessions) as table:
            early = Table(table.stream(ADMIN, None))
            await early.until(lambda jobs: len(jobs) == 3 and all(job["queue"] for job in jobs.values()))
            cancel(sessions, before)
            await asyncio.to_thread(servers.stop_database)
            late = Table(table.stream(ADMIN, None))
            news = [asyncio.create_task(page.until(lambda jobs: is_over(jobs, after))) for page in (early, late)]
            caplog.clear()
            while caplog.text.count("the database is unavailable") < 3:
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in news)
            await asyncio.to_thread(servers.start_database)
            cancel(sessions, after)
            await asyncio.gather(*news)
            for page in (early, late):
                assert is_over(page.jobs, before)
                assert page.jobs[kept]["status"] == "queued"
                assert page.resets == 1
                await page.close()

    run(test)
    engine.dispose()


def is_over(jobs: dict[str, dict[str, object]], job_id: str) -> bool:
    return job_id in jobs and jobs[job_id]["status"] == "cancelled"


def test_client_that_does_not_read_delays_no_other(sessions: Sessions) -> None:
    """It finds all that it missed in one event, of each job only the latest."""

    async def test() -> None:
        job_id, other = create_job(sessions), create_job(sessions)
        with sessions.begin() as session:
            register(session, slots=1)
            begin(session)
        async with running(sessions) as table:
            slow, reader = Table(table.stream(ADMIN, None)), Table(table.stream(ADMIN, None))
            await slow.take()
            await reader.until(lambda jobs: len(jobs) == 2)
            first = slow.bytes
            for step in range(1, 51):
                record_events(sessions, job_id, metric(step, step))
                await reader.until(lambda jobs, step=step: jobs[job_id]["step"] == step)  # type: ignore[misc]
            cancel(sessions, other)
            await reader.until(lambda jobs: is_over(jobs, other))
            await slow.take()
            assert slow.jobs == reader.jobs
            assert slow.bytes < 3 * first
            for page in (slow, reader):
                await page.close()

    run(test)


def test_first_client_waits_for_no_look(sessions: Sessions) -> None:
    async def test() -> None:
        async with running(sessions, TablePace(look_seconds=60.0)) as table:
            for _ in range(3):
                page = Table(table.stream(ADMIN, None))
                assert (await page.take())["reset"]
                await page.close()

    run(test)
