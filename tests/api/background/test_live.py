"""What many clients see of jobs while they run, against what the database has."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from anyio import create_task_group

from api.background.live import Live, Pace
from contract.events import Event
from contract.failure import Failure, FailureCode
from store.jobs.progress import Cursor
from store.models import Job
from store.session import Sessions, make_sessions
from tests.api.background.streams import (
    Received,
    end,
    log_line,
    parse,
    read_all,
    record,
    running_job,
    started,
    wait_until,
)
from tests.support.events import metric
from tests.support.jobs import claim
from tests.support.servers import running_servers

pytestmark = pytest.mark.timeout(120)

T = TypeVar("T")


OFTEN = Pace(poll_seconds=0.01)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def streaming(sessions: Sessions, pace: Pace = OFTEN) -> AsyncIterator[Live]:
    streams = Live(sessions, pace)
    async with create_task_group() as tasks:
        tasks.start_soon(streams.run)
        yield streams
        tasks.cancel_scope.cancel()
    assert streams.clients == 0


async def whole(streams: Live, job_id: str, cursor: Cursor = Cursor(), pause: float = 0) -> list[Received]:  # noqa: B008
    reported: list[Received] = []
    async for chunk in streams.stream(job_id, cursor):
        reported += parse(chunk)
        await asyncio.sleep(pause)
    return reported


def assert_whole(reported: list[Received], sessions: Sessions, job_id: str, begin: Cursor = Cursor()) -> None:  # noqa: B008
    """Each event and each metric after `begin` once, in its order, and each id as far as what came before it."""
    there = read_all(sessions, job_id)
    seqs = [cursor.seq for kind, cursor, _ in reported if kind not in ("metric", "queue")]
    steps = [cursor.step for kind, cursor, _ in reported if kind == "metric"]
    assert seqs == [cursor.seq for kind, cursor, _ in there if kind != "metric" and cursor.seq > begin.seq]
    assert steps == [cursor.step for kind, cursor, _ in there if kind == "metric" and cursor.step > begin.step]
    by_place = {(kind == "metric", cursor[kind == "metric"]): data for kind, cursor, data in there}
    so_far = begin
    for kind, cursor, data in reported:
        if kind == "queue":
            continue
        assert data == by_place[kind == "metric", cursor[kind == "metric"]]
        assert cursor == (so_far._replace(step=cursor.step) if kind == "metric" else so_far._replace(seq=cursor.seq))
        so_far = cursor


@pytest.mark.parametrize("seed", range(5))
def test_each_client_sees_every_event_once(sessions: Sessions, seed: int) -> None:
    """Two jobs tell in batches, and one of them goes on from an earlier step after a failure; clients come, break off,
    take up again with their last id, and some hardly read."""
    chance = random.Random(seed)
    lost = Failure(code=FailureCode.TRAINER_KILLED, message="killed")

    def write(job: Job, first: int, last: int) -> None:
        step = first
        while step <= last:
            batch: list[Event] = []
            for _ in range(chance.randint(1, 30)):
                # Clocks of several machines: the times of events and of metrics do not agree.
                batch.append(metric(step, step + chance.uniform(-5, 5)))
                step += 1
                if chance.random() < 0.3:
                    batch.append(log_line(step + chance.randint(-9, 9)))
            record(sessions, job, *batch)

    async def tell(job: Job, retried: bool) -> None:
        await asyncio.to_thread(record, sessions, job, started())
        await asyncio.to_thread(write, job, 1, 150)
        if retried:
            await asyncio.to_thread(end, sessions, job, lost)
            job = await asyncio.to_thread(claim_again)
            await asyncio.to_thread(record, sessions, job, started(80))
            await asyncio.to_thread(write, job, 81, 300)
        await asyncio.to_thread(end, sessions, job)

    def claim_again() -> Job:
        with sessions.begin() as session:
            job = claim(session)
        assert job is not None
        return job

    async def watch(streams: Live, job_id: str) -> list[Received]:
        await asyncio.sleep(chance.uniform(0, 0.3))
        reported: list[Received] = []
        cursor, over = Cursor(), False
        while not over:
            stay, slow = chance.randint(5, 400), chance.choice([0, 0, 0.05])
            over = True
            before = len(reported)
            stream = streams.stream(job_id, cursor)
            async for chunk in stream:
                reported += parse(chunk)
                if reported:
                    cursor = reported[-1][1]
                if len(reported) - before > stay:
                    over = False
                    break
                await asyncio.sleep(slow)
            await stream.aclose()  # type: ignore[attr-defined]
        return reported

    async def all_of_it() -> list[tuple[str, list[Received]]]:
        first, second = running_job(sessions), running_job(sessions)
        async with streaming(sessions, replace(OFTEN, page=20, most_waiting=40)) as streams:
            ids = [first.id, second.id] * 15
            clients = [asyncio.create_task(watch(streams, job_id)) for job_id in ids]
            await asyncio.gather(tell(first, retried=False), tell(second, retried=True))
            return list(zip(ids, await asyncio.gather(*clients), strict=True))

    for job_id, reported in run(all_of_it()):
        kinds = [data["status"] for kind, _, data in reported if kind == "status"]
        assert kinds[-1] == "succeeded"
        if "queued" in kinds[1:]:  # a client that was there before saw metrics that are gone now
            steps = [cursor.step for kind, cursor, _ in reported if kind == "metric"]
            assert steps == list(range(1, len(steps) + 1))
        else:
            assert_whole(reported, sessions, job_id)


def test_one_query_serves_all_clients_of_all_jobs(sessions: Sessions, engine: sa.Engine) -> None:
    requested = []

    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "FROM events" in statement:
            requested.append(statement)

    async def all_of_it() -> None:
        ours = [running_job(sessions) for _ in range(3)]
        async with streaming(sessions) as streams:
            clients = [asyncio.create_task(whole(streams, job.id)) for job in ours for _ in range(20)]
            await wait_until(lambda: sum(len(each.subscriptions) for each in streams._watched.values()) == 60)
            requested.clear()
            await wait_until(lambda: len(requested) >= 5)
            for job in ours:
                await asyncio.to_thread(end, sessions, job)
            for reported in await asyncio.gather(*clients):
                assert reported[-1][2]["status"] == "succeeded"
        # None of the 60 has queried by itself.
        assert len(requested) < 60

    sa.event.listen(engine, "before_cursor_execute", count)
    try:
        run(all_of_it())
    finally:
        sa.event.remove(engine, "before_cursor_execute", count)


def test_invented_id_harms_no_other_client(sessions: Sessions) -> None:
    async def all_of_it() -> None:
        job = running_job(sessions)
        async with streaming(sessions) as streams:
            liar = asyncio.create_task(whole(streams, job.id, Cursor(2**31 - 1, 2**31 - 1)))
            await wait_until(lambda: streams._watched)
            honest = asyncio.create_task(whole(streams, job.id))
            await wait_until(lambda: len(streams._watched[job.id].subscriptions) == 2)
            await asyncio.to_thread(record, sessions, job, metric(1, 1), log_line())
            await asyncio.to_thread(end, sessions, job)
            assert await liar == []
            assert_whole(await honest, sessions, job.id)

    run(all_of_it())


def test_slow_client_is_sent_everything_later(sessions: Sessions) -> None:
    async def all_of_it() -> list[Received]:
        job = running_job(sessions)
        async with streaming(sessions) as streams:
            stream = streams.stream(job.id, Cursor())
            reported = list(parse(await anext(stream)))
            waits = asyncio.ensure_future(anext(stream))
            await wait_until(lambda: streams._watched)
            (share,) = streams._watched[job.id].subscriptions
            await asyncio.to_thread(record, sessions, job, log_line())
            reported += parse(await waits)
            for _ in range(4):  # and now it does not ask for more
                await asyncio.to_thread(record, sessions, job, *[log_line()] * Pace.page)
                await asyncio.sleep(0.1)
                assert share.waiting <= Pace.most_waiting
            await wait_until(lambda: share.dropped)
            assert not share.waiting
            await asyncio.to_thread(end, sessions, job)
            async for chunk in stream:
                reported += parse(chunk)
            assert_whole(reported, sessions, job.id)
            return reported

    assert len(run(all_of_it())) == 4 * Pace.page + 4


@pytest.mark.parametrize("pace", [OFTEN, Pace()], ids=["often", "as shipped"])
def test_late_client_sees_the_retried_steps(sessions: Sessions, pace: Pace) -> None:
    lost = Failure(code=FailureCode.TRAINER_KILLED, message="killed")

    async def all_of_it() -> list[Received]:
        job = running_job(sessions)
        record(sessions, job, started(), *(metric(step, step) for step in range(1, 101)))
        async with streaming(sessions, pace) as streams:
            old = asyncio.create_task(whole(streams, job.id))
            await wait_until(lambda: streams._watched)
            assert streams._watched[job.id].cursor.step == 100
            await asyncio.to_thread(end, sessions, job, lost)
            with sessions.begin() as session:
                again = claim(session)
            assert again is not None
            await asyncio.to_thread(record, sessions, again, started(50), metric(51, 51))
            new = asyncio.create_task(whole(streams, job.id))
            await wait_until(lambda: len(streams._watched[job.id].subscriptions) == 2)
            await asyncio.to_thread(record, sessions, again, *(metric(step, step) for step in range(52, 111)))
            await asyncio.to_thread(end, sessions, again)
            steps = [cursor.step for kind, cursor, _ in await old if kind == "metric"]
            assert steps == list(range(1, 111))
            reported = await new
            assert_whole(reported, sessions, job.id)
            return reported

    assert len([kind for kind, _, _ in run(all_of_it()) if kind == "metric"]) == 110


def test_idle_stream_sends_keepalives(
    sessions: Sessions,
) -> None:
    async def all_of_it() -> bytes:
        job = running_job(sessions)
        async with streaming(sessions, replace(OFTEN, heartbeat_seconds=0.05)) as streams:
            stream = streams.stream(job.id, Cursor())
            await anext(stream)
            beat = await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            assert not streams._watched
            return beat

    assert run(all_of_it()) == b": ping\n\n"


def test_database_that_is_away_ends_no_stream(
    servers_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = servers_folder / "away"
    folder.mkdir()
    with running_servers(folder) as servers:
        monkeypatch.setenv("FINETUNED_DATABASE_URL", servers.database.url)
        subprocess.run([sys.executable, "-m", "migrations"], check=True)
        engine = sa.create_engine(servers.database.url, pool_pre_ping=True)
        sessions = make_sessions(engine)

        async def all_of_it() -> list[Received]:
            job = running_job(sessions)
            async with streaming(sessions, replace(OFTEN, away_seconds=0.05)) as streams:
                early = asyncio.create_task(whole(streams, job.id))
                await wait_until(lambda: streams._watched)
                await asyncio.to_thread(servers.stop_database)
                late = asyncio.create_task(whole(streams, job.id))
                await asyncio.sleep(0.5)
                assert not early.done()
                assert not late.done()
                await asyncio.to_thread(servers.start_database)
                await asyncio.to_thread(record, sessions, job, log_line())
                await asyncio.to_thread(end, sessions, job)
                reported = await early
                assert reported == await late
                assert_whole(reported, sessions, job.id)
                return reported

        assert run(all_of_it())[-1][2]["status"] == "succeeded"
        engine.dispose()
