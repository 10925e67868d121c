"""What happens to jobs, as it happens, for any number of clients: one query twice a second reads what is new of all the
jobs that somebody watches, and hands it to each client.

A client first reads from the database what it lacks. Then it is handed what is new, a page at a time. Each page says
where it begins: a client that is not so far yet goes back to the database, whatever the reason. So a stream has no gap
after a retry, which deletes steps and writes them again, either. A client that takes its pages too slowly goes back to
the database too, so that little waits for it here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from api.background.sse import HEARTBEAT, Message, message, queue_message
from api.background.subscription import EventBatch, StreamReader, Subscription
from api.jobs import view
from api.jobs.schemas import Queue, queue
from contract.status import TERMINAL, JobStatus
from store.jobs.progress import Cursor, JobUpdate
from store.session import Sessions

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """How often streams poll the database, and how much they buffer."""

    poll_seconds: float = 0.5
    queue_seconds: float = 3.0
    """Time between two polls of the queue, which cost more."""
    heartbeat_seconds: float = 15.0
    away_seconds: float = 1.0
    """Wait before the next try when the database does not answer."""
    page: int = 500
    """Most rows of one read."""
    most_waiting: int = 1000
    """Most messages buffered for a slow client. With more, it reads them from the database later."""


@dataclass(eq=False)
class _Watched:
    """A job with open event streams."""

    cursor: Cursor
    """Where the next poll begins."""
    status: JobStatus
    subscriptions: set[Subscription] = field(default_factory=set)
    queue: Queue | None = None

    def put(self, page: EventBatch) -> None:
        for subscription in list(self.subscriptions):
            subscription.put(page)
            if subscription.dropped:
                self.subscriptions.discard(subscription)

    def put_queue(self, queue: Queue) -> None:
        self.queue = queue
        for subscription in self.subscriptions:
            subscription.put_queue(queue_message(queue))


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

    def restarted(self) -> "Live":
        """Another one, for another event loop."""
        return Live(self._sessions, self._pace)

    async def run(self) -> None:
        """Runs until it is cancelled."""
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
        """All events of a job after `cursor` until it has ended, as an event stream. While it waits, an event "queue"
        gives its position and what it waits for, at the beginning and when these change. An unavailable database ends
        no stream."""
        client = StreamReader(cursor)
        subscription: Subscription | None = None
        self.clients += 1
        try:
            while True:
                news = await self._patiently(partial(self._catch_up, job_id, client.cursor))
                if news is None:
                    yield HEARTBEAT
                    continue
                if job_id not in news:
                    return
                yield client.read(news[job_id])
                if len(news[job_id].events) == self._pace.page:
                    continue
                # Nothing was left to read when the status was this.
                if news[job_id].status in TERMINAL:
                    return
                if subscription is None:
                    subscription = self._join(job_id, client, news[job_id])
                while not client.behind and not subscription.is_over:
                    yield client.take(*await subscription.take(self._pace.heartbeat_seconds)) or HEARTBEAT
                if subscription.ended and not client.behind:
                    return
                if subscription.is_over:
                    subscription = None
        finally:
            self.clients -= 1
            if subscription is not None:
                self._leave(job_id, subscription)

    def _join(self, job_id: str, client: StreamReader, news: JobUpdate) -> Subscription:
        """Subscribes a client that has read `news`. If the next poll begins further on, the client is behind: it reads
        once more, and then has everything that was sent before it joined."""
        # No further than there is anything: a client may have made up its Last-Event-ID.
        start = _at_most(client.cursor, news.end)
        watched = self._watched.setdefault(job_id, _Watched(start, news.status))
        subscription = Subscription(self._pace.most_waiting)
        watched.subscriptions.add(subscription)
        if watched.queue is not None:
            subscription.put_queue(queue_message(watched.queue))
        self._any_watched.set()
        client.look_from(watched.cursor)
        return subscription

    def _leave(self, job_id: str, subscription: Subscription) -> None:
        watched = self._watched.get(job_id)
        if watched is not None:
            watched.subscriptions.discard(subscription)
            if not watched.subscriptions:
                self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        del self._watched[job_id]
        if not self._watched:
            self._any_watched.clear()

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T | None:
        """None, after a pause, if the database does not answer."""
        try:
            return await read()
        except (OperationalError, NoConnectionFree) as error:
            log.warning("event streams wait, the database is away: %s", error)
            await asyncio.sleep(self._pace.away_seconds)
            return None

    async def _catch_up(self, job_id: str, cursor: Cursor) -> dict[str, JobUpdate]:
        read = partial(view.news, self._sessions, {job_id: cursor}, self._pace.page)
        return await to_thread.run_sync(read, limiter=self._catching_up)

    async def look(self) -> bool:
        """Sends new events to the clients. Returns whether there are more to read at once."""
        reading = dict(self._watched)
        cursors = {job_id: watched.cursor for job_id, watched in reading.items()}
        read = partial(_read, self._sessions, cursors, self._pace.page)
        news, messages = await to_thread.run_sync(read, limiter=self._reader)
        more = False
        for job_id, watched in reading.items():
            if self._watched.get(job_id) is watched:
                more |= self._hand_out(job_id, watched, news.get(job_id), messages.get(job_id, []))
        await self._look_at_queue()
        return more

    def _hand_out(self, job_id: str, watched: _Watched, news: JobUpdate | None, messages: list[Message]) -> bool:
        if news is not None:
            # A retry deletes steps, and the curve grows again from there: so does what is read.
            rewound = news.end.step < watched.cursor.step
            if messages or rewound:
                watched.put(EventBatch(watched.cursor, news.end.seq, messages))
            if messages:
                watched.cursor = news.events[-1].cursor
            watched.cursor, watched.status = _at_most(watched.cursor, news.end), news.status
        if len(messages) == self._pace.page:
            return True
        if news is None or news.status in TERMINAL:
            for subscription in watched.subscriptions:
                subscription.end()
            self._forget(job_id)
        elif not watched.subscriptions:  # all of them were too slow
            self._forget(job_id)
        return False

    async def _look_at_queue(self) -> None:
        waiting = [job_id for job_id, watched in self._watched.items() if watched.status is JobStatus.QUEUED]
        unlooked = any(self._watched[job_id].queue is None for job_id in waiting)
        if not waiting or (time.monotonic() < self._next_look and not unlooked):
            return
        found = await to_thread.run_sync(partial(view.waits_of, self._sessions, waiting), limiter=self._reader)
        self._next_look = time.monotonic() + self._pace.queue_seconds
        for job_id, wait in found.items():
            if job_id in self._watched:
                self._watched[job_id].put_queue(queue(wait))


def _read(
    sessions: Sessions, cursors: dict[str, Cursor], page: int
) -> tuple[dict[str, JobUpdate], dict[str, list[Message]]]:
    news = view.news(sessions, cursors, page)
    return news, {job_id: [message(event) for event in each.events] for job_id, each in news.items()}


def _at_most(cursor: Cursor, end: Cursor) -> Cursor:
    return Cursor(min(cursor.seq, end.seq), min(cursor.step, end.step))
