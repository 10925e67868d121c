"""Event streams across retries: whatever the order of writes, looks and joins, no client lacks a step.

A test is a list of moves, done one after another: the looks of the shared reader are called by hand.
"""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.background.live import Live, Pace
from contract.events import Event
from contract.failure import Failure, FailureCode
from contract.status import JobStatus
from store.jobs.attempts import AttemptEnd, Retries, finish
from store.jobs.progress import Cursor, catch_up, events_since
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
from tests.support.jobs import LEASE, claim

pytestmark = pytest.mark.timeout(120)

PATIENT = Retries(most=1000, first_wait=timedelta(0), longest_wait=timedelta(0))
LOST = Failure(code=FailureCode.TRAINER_KILLED, message="killed")
SMALL = Pace(page=8, most_waiting=16, heartbeat_seconds=0.05)
MOST_LOOKS = 60
"""After which every stream must have ended."""

Move = tuple[str, int]


@dataclass(eq=False)
class Reader:
    """One client: it reads at once, or when it is let."""

    begin: Cursor
    after_retries: int
    slow: bool
    received: list[Received] = field(default_factory=list)
    chunks: int = 0
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def read(self, live: Live, job_id: str) -> None:
        async for chunk in live.stream(job_id, self.begin):
            self.received += parse(chunk)
            self.chunks += 1
            if self.slow:
                await self.may_read.wait()
                self.may_read.clear()

    @property
    def cursor(self) -> Cursor:
        return self.received[-1][1] if self.received else self.begin


class Held:
    """Holds the next read of an engine after its query, wait_until it is let go."""

    def __init__(self, engine: sa.Engine) -> None:
        self._armed, self.holding, self._go = False, threading.Event(), threading.Event()
        sa.event.listen(engine, "commit", self._commit)

    def _commit(self, _: sa.Connection) -> None:
        if self._armed:
            self._armed = False
            self.holding.set()
            assert self._go.wait(60)

    def arm(self) -> None:
        self.holding.clear()
        self._go.clear()
        self._armed = True

    def let_go(self) -> None:
        self._armed = False
        self._go.set()


class Scene:
    """A job, its streams, and the moves that are made."""

    def __init__(self, sessions: Sessions, reading: Sessions, held: Held, seed: int) -> None:
        self.sessions, self.held, self.chance = sessions, held, random.Random(seed)
        self.live = Live(reading, SMALL)
        self.job: Job = running_job(sessions)
        self.step, self.retries = 0, 0
        self.readers: list[Reader] = []
        self.left: list[Reader] = []
        self.look: asyncio.Task[bool] | None = None
        self.polled: list[Received] = []
        record(sessions, self.job, started())

    async def play(self, moves: Sequence[Move]) -> None:
        for name, number in moves:
            await getattr(self, name)(number)
            await self.settle()
        await self.release(0)
        await asyncio.to_thread(end, self.sessions, self.job)
        for reader in self.readers:
            reader.slow = False
        for _ in range(MOST_LOOKS):
            if all(reader.task and reader.task.done() for reader in self.readers):
                break
            for reader in self.readers:
                reader.may_read.set()
            await self.live.look()
            await self.settle()
        else:
            pytest.fail("a stream has not ended")
        for reader in self.readers:
            assert reader.task
            await reader.task
        await self.poll(10_000)

    async def settle(self) -> None:
        """Until no client reads the database."""
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            quiet = 0 if self.live._catching_up.borrowed_tokens else quiet + 1
            if not quiet:
                await asyncio.sleep(0.001)

    def _steps(self, count: int) -> list[Event]:
        batch: list[Event] = []
        for _ in range(count):
            self.step += 1
            # Clocks of several machines: the times of events and of metrics do not agree.
            time = self.step + self.chance.uniform(-5, 5)
            batch.append(metric(self.step, time).model_copy(update={"tokens": self.job.attempt}))
            if self.chance.random() < 0.2:
                batch.append(log_line(self.step))
        return batch

    async def write(self, count: int) -> None:
        await asyncio.to_thread(record, self.sessions, self.job, *self._steps(count))

    async def _next_attempt(self) -> None:
        def lose_and_claim() -> Job | None:
            with self.sessions.begin() as session:
                finish(session, self.job.id, self.job.attempt, AttemptEnd(JobStatus.FAILED, LOST), PATIENT)
                return claim(session)

        again = await asyncio.to_thread(lose_and_claim)
        assert again is not None
        self.job, self.retries = again, self.retries + 1

    async def retry(self, back: int) -> None:
        """From `back` steps before. The first steps may be written with `started`."""
        await self._next_attempt()
        self.step = max(0, self.step - back)
        first = started(self.step)
        await asyncio.to_thread(record, self.sessions, self.job, first, *self._steps(back % 3))

    async def catch_up(self, back: int) -> None:
        """An attempt wrote its first steps to its run folder alone and was lost. The next one writes them."""
        await self._next_attempt()
        before, self.step = self.job.attempt, max(0, self.step - back)
        unwritten = [started(self.step), *self._steps(1 + back // 2)]
        await self._next_attempt()

        def write() -> None:
            with self.sessions.begin() as session:
                catch_up(session, self.job.id, self.job.attempt, before, unwritten, LEASE)

        await asyncio.to_thread(write)
        await self.settle()
        await asyncio.to_thread(record, self.sessions, self.job, started(self.step))

    async def look_now(self, _: int) -> None:
        if self.look is None:
            await self.live.look()

    async def hold(self, _: int) -> None:
        """A look begins, and has read; what it has read is handed out later."""
        if self.look is None and self.live._watched:
            self.held.arm()
            self.look = asyncio.create_task(self.live.look())
            await wait_until(self.held.holding.is_set)

    async def release(self, _: int) -> None:
        if self.look is not None:
            self.held.let_go()
            await self.look
            self.look = None

    async def join(self, kind: int) -> None:
        """A new client, or one that takes up again; fast or slow."""
        begin, after = Cursor(), self.retries
        if kind >= 2 and self.left:
            reader = self.left.pop()
            begin, after = reader.cursor, -1
        joined = Reader(begin, after, slow=kind % 2 == 1)
        joined.task = asyncio.create_task(joined.read(self.live, self.job.id))
        self.readers.append(joined)
        await wait_until(lambda: joined.chunks)

    async def leave(self, number: int) -> None:
        there = [reader for reader in self.readers if reader.task and not reader.task.cancelled()]
        if there:
            reader = there[number % len(there)]
            assert reader.task
            self.readers.remove(reader)
            self.left.append(reader)
            reader.task.cancel()
            await asyncio.wait([reader.task])

    async def let_read(self, _: int) -> None:
        for reader in self.readers:
            reader.may_read.set()
        await asyncio.sleep(0)

    async def poll(self, limit: int) -> None:
        """A client without a stream asks for the page after its last event."""
        after = self.polled[-1][1] if self.polled else Cursor()
        with self.sessions.begin() as session:
            page = events_since(session, self.job.id, after, limit)
        self.polled += [(each.type, each.cursor, each.data) for each in page]

    def check(self) -> None:
        """Each reader has every event and every step after where it began, once and in order. One that came after the
        last retry has what the database has."""
        there = read_all(self.sessions, self.job.id)
        data = {(kind == "metric", cursor[kind == "metric"]): data for kind, cursor, data in there}
        last_seq = max(cursor.seq for _, cursor, _ in there)
        poller = Reader(Cursor(), -1, slow=False, received=self.polled)
        for reader in [*self.readers, poller]:
            received = [each for each in reader.received if each[0] != "queue"]
            steps = [cursor.step for kind, cursor, _ in received if kind == "metric"]
            # One that was there before a retry may have come further than the job has by now.
            furthest = steps[-1] if steps else reader.begin.step
            assert steps == list(range(reader.begin.step + 1, furthest + 1))
            assert furthest == self.step if reader.after_retries == self.retries else furthest >= self.step
            seqs = [cursor.seq for kind, cursor, _ in received if kind != "metric"]
            assert seqs == list(range(reader.begin.seq + 1, last_seq + 1))
            if reader.after_retries == self.retries:
                for kind, cursor, each in received:
                    assert each == data[kind == "metric", cursor[kind == "metric"]]


@pytest.fixture(scope="module")
def held(database_url: str) -> Iterator[tuple[Sessions, Held]]:
    engine = sa.create_engine(database_url)
    yield make_sessions(engine), Held(engine)
    engine.dispose()


def play(sessions: Sessions, held: tuple[Sessions, Held], moves: Sequence[Move], seed: int = 0) -> None:
    scene = Scene(sessions, *held, seed)
    asyncio.run(scene.play(moves))
    scene.check()


# A retry from step 50 where step 100 was sent. A client joins, and the reader looks once steps beyond 100 are there.
HOLE: list[Move] = [("write", 100), ("join", 0), ("look_now", 0), ("retry", 50), ("join", 0), ("write", 60)]


@pytest.mark.parametrize(
    "moves",
    [
        [*HOLE, ("look_now", 0), ("write", 20)],
        [*HOLE[:-1], ("write", 51), ("look_now", 0)],
        [*HOLE[:-1], ("look_now", 0), ("join", 0), ("write", 60), ("look_now", 0)],
        [*HOLE, ("join", 0), ("look_now", 0), ("join", 0), ("retry", 30), ("join", 0), ("write", 60)],
        [*HOLE[:3], ("catch_up", 50), ("join", 0), ("write", 60), ("look_now", 0)],
        [*HOLE[:3], ("write", 5), ("hold", 0), ("retry", 50), ("join", 0), ("release", 0), ("write", 60)],
    ],
    ids=["steps beyond", "one step beyond", "a look between", "two retries", "a lost worker", "a look under way"],
)
def test_client_joining_after_a_retry_lacks_nothing(
    sessions: Sessions, held: tuple[Sessions, Held], moves: list[Move]
) -> None:
    play(sessions, held, moves)


MOVES = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 12)),
    st.tuples(st.sampled_from(["retry", "catch_up"]), st.integers(0, 10)),
    st.tuples(st.just("join"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["look_now", "hold", "release", "let_read"]), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
    st.tuples(st.just("poll"), st.integers(1, 20)),
)


def in_any_order(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    drawn = given(moves=st.lists(MOVES, min_size=4, max_size=14), seed=st.integers(0, 99))
    few = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    return lambda test: few(drawn(test))


def check_any_order(sessions: Sessions, held: tuple[Sessions, Held], moves: list[Move], seed: int) -> None:
    play(sessions, held, [("write", 12), ("join", 0), ("look_now", 0), *moves], seed)


@in_any_order(20)
def test_no_stream_lacks_a_step_in_any_order(
    sessions: Sessions, held: tuple[Sessions, Held], moves: list[Move], seed: int
) -> None:
    check_any_order(sessions, held, moves, seed)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@in_any_order(500)
def test_no_stream_lacks_a_step_in_many_orders(
    sessions: Sessions, held: tuple[Sessions, Held], moves: list[Move], seed: int
) -> None:
    check_any_order(sessions, held, moves, seed)
