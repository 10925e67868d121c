"""What happens to jobs, as it happens, for any number of clients: one query twice a second reads what is new of all the
jobs that somebody watches, and hands it to each client.

A client first reads from the database what it lacks. Then it is handed what is new; one that takes it too slowly goes
back to the database, so that little waits for it here.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from api.schemas.jobs import Queue
from api.services import events as service
from api.sse import HEARTBEAT, Message, message, queue_message
from contract.status import TERMINAL, JobStatus
from store.progress import Cursor, Happening, News
from store.session import Sessions

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How often streams look for news, and how much they keep."""

    poll_seconds: float = 0.5
    queue_seconds: float = 3.0
    """Between two looks at the queue, which cost more."""
    heartbeat_seconds: float = 15.0
    away_seconds: float = 1.0
    """Before the database is asked again when it did not answer."""
    page: int = 500
    """Rows of one read."""
    most_waiting: int = 1000
    """Messages for a client that does not read. With more it reads them from the database later."""


@dataclass(eq=False)
class _Share:
    """What one client has yet to take of a job that it watches."""

    pace: Pace
    waiting: deque[Message] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    """With what waits all is told."""
    dropped: bool = False
    """It took too little: what waited is gone."""

    def put(self, told: list[Message]) -> None:
        if len(self.waiting) + len(told) > self.pace.most_waiting:
            self.waiting.clear()
            self.dropped = True
        else:
            self.waiting.extend(told)
        self.changed.set()

    def end(self) -> None:
        self.ended = True
        self.changed.set()

    async def take(self) -> list[Message]:
        """What waits, once there is any, or nothing when a heartbeat is due."""
        try:
            async with asyncio.timeout(self.pace.heartbeat_seconds):
                await self.changed.wait()
        except TimeoutError:
            return []
        self.changed.clear()
        taken = list(self.waiting)
        self.waiting.clear()
        return taken


@dataclass(eq=False)
class _Watched:
    """A job that somebody watches."""

    cursor: Cursor
    """What is read next is after it."""
    status: JobStatus
    shares: set[_Share] = field(default_factory=set)
    queue: Queue | None = None

    def put(self, told: list[Message]) -> None:
        for share in list(self.shares):
            share.put(told)
            if share.dropped:
                self.shares.discard(share)


class _Client:
    """How far one client has come."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._queue: tuple[int, str] | None = None

    def encode(self, told: Iterable[Message]) -> bytes:
        """What the client does not have yet of what was told."""
        parts = []
        for each in told:
            if each.seq > self.cursor.seq:
                self.cursor = self.cursor._replace(seq=each.seq)
            elif each.step > self.cursor.step:
                self.cursor = self.cursor._replace(step=each.step)
            elif each.queue not in (None, self._queue):
                self._queue = each.queue
            else:
                continue
            parts += [each.body, b"id: %d.%d\n\n" % self.cursor]
        return b"".join(parts)


class Live:
    def __init__(self, sessions: Sessions, pace: Pace = Pace()) -> None:
        self.clients = 0
        self._sessions = sessions
        self._pace = pace
        self._watched: dict[str, _Watched] = {}
        self._any_watched = asyncio.Event()
        self._next_look = 0.0
        # Apart from the threads of the routes: neither waits for the other.
        self._reader, self._catching_up = CapacityLimiter(1), CapacityLimiter(4)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._any_watched.wait()
            try:
                more = await self._patiently(self.look)
            except Exception:
                log.exception("event streams wait; the next look will tell them what is new")
                more = False
            if not more:
                await asyncio.sleep(self._pace.poll_seconds)

    async def stream(self, job_id: str, cursor: Cursor) -> AsyncIterator[bytes]:
        """All that happens to a job after `cursor` until it has ended, as an event stream. While it waits, an event
        "queue" tells of its place and what it waits for, at the beginning and when these change. A database that is
        away ends no stream."""
        client = _Client(cursor)
        share: _Share | None = None
        self.clients += 1
        try:
            while True:
                news = await self._patiently(partial(self._catch_up, job_id, client.cursor))
                if news is None:
                    yield HEARTBEAT
                    continue
                if job_id not in news:
                    return
                yield client.encode(map(message, news[job_id].happenings))
                if len(news[job_id].happenings) == self._pace.page:
                    continue
                # All that there was had been told when the status was this.
                if news[job_id].status in TERMINAL:
                    return
                if share is None:
                    share, reaches_back = self._join(job_id, client.cursor, news[job_id])
                    if not reaches_back:
                        continue
                while not (share.dropped or (share.ended and not share.waiting)):
                    yield client.encode(await share.take()) or HEARTBEAT
                if share.ended:
                    return
                share = None
        finally:
            self.clients -= 1
            if share is not None:
                self._leave(job_id, share)

    def _join(self, job_id: str, cursor: Cursor, news: News) -> tuple[_Share, bool]:
        """A share in what is read from now on, and whether it begins at `cursor` or before. Where it does not, the
        client reads once more: what it then has reaches further than what was handed out before it joined."""
        # No further than there is anything: a client may have made up its Last-Event-ID.
        start = Cursor(min(cursor.seq, news.end.seq), min(cursor.step, news.end.step))
        watched = self._watched.setdefault(job_id, _Watched(start, news.status))
        share = _Share(self._pace)
        watched.shares.add(share)
        if watched.queue is not None:
            share.put([queue_message(watched.queue)])
        self._any_watched.set()
        return share, cursor.seq >= watched.cursor.seq and cursor.step >= watched.cursor.step

    def _leave(self, job_id: str, share: _Share) -> None:
        watched = self._watched.get(job_id)
        if watched is not None:
            watched.shares.discard(share)
            if not watched.shares:
                self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        del self._watched[job_id]
        if not self._watched:
            self._any_watched.clear()

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T | None:
        """None where the database does not answer, after a while."""
        try:
            return await read()
        except (OperationalError, NoConnectionFree) as error:
            log.warning("event streams wait, the database is away: %s", error)
            await asyncio.sleep(self._pace.away_seconds)
            return None

    async def _catch_up(self, job_id: str, cursor: Cursor) -> dict[str, News]:
        read = partial(service.news, self._sessions, {job_id: cursor}, self._pace.page)
        return await to_thread.run_sync(read, limiter=self._catching_up)

    async def look(self) -> bool:
        """Hands out what is new. Whether there is more to read at once."""
        reading = dict(self._watched)
        cursors = {job_id: watched.cursor for job_id, watched in reading.items()}
        read = partial(_read, self._sessions, cursors, self._pace.page)
        news, told = await to_thread.run_sync(read, limiter=self._reader)
        more = False
        for job_id, watched in reading.items():
            if self._watched.get(job_id) is watched:
                more |= self._hand_out(job_id, watched, news.get(job_id), told.get(job_id, []))
        await self._look_at_queue()
        return more

    def _hand_out(self, job_id: str, watched: _Watched, news: News | None, told: list[Message]) -> bool:
        if told:
            watched.put(told)
        if news is not None:
            watched.status = news.status
            watched.cursor = _after(watched.cursor, news.happenings)
        if len(told) == self._pace.page:
            return True
        if news is None or news.status in TERMINAL:
            for share in watched.shares:
                share.end()
            self._forget(job_id)
        elif not watched.shares:  # all of them were too slow
            self._forget(job_id)
        return False

    async def _look_at_queue(self) -> None:
        waiting = [job_id for job_id, watched in self._watched.items() if watched.status is JobStatus.QUEUED]
        unlooked = any(self._watched[job_id].queue is None for job_id in waiting)
        if not waiting or (time.monotonic() < self._next_look and not unlooked):
            return
        found = await to_thread.run_sync(partial(service.queues_of, self._sessions, waiting), limiter=self._reader)
        self._next_look = time.monotonic() + self._pace.queue_seconds
        for job_id, queue in found.items():
            if job_id in self._watched:
                self._watched[job_id].queue = queue
                self._watched[job_id].put([queue_message(queue)])


def _read(
    sessions: Sessions, cursors: dict[str, Cursor], page: int
) -> tuple[dict[str, News], dict[str, list[Message]]]:
    news = service.news(sessions, cursors, page)
    return news, {job_id: [message(happening) for happening in each.happenings] for job_id, each in news.items()}


def _after(cursor: Cursor, happenings: list[Happening]) -> Cursor:
    if happenings:
        cursor = happenings[-1].cursor
    for happening in happenings:
        if happening.type == "started":
            # The metrics beyond it were deleted, and come again: a client that has them already passes them over.
            cursor = cursor._replace(step=min(cursor.step, happening.data["resumed_step"]))
    return cursor
