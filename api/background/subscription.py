"""What one client of an event stream has received, and what is buffered for it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from api.background.sse import Message, message
from store.jobs.progress import Cursor, JobUpdate


@dataclass(frozen=True)
class EventBatch:
    """Messages of one poll about one job."""

    begin: Cursor
    """Where the poll began. A client that has not come so far would miss what lies between."""
    as_of: int
    """The last event at that time."""
    messages: list[Message]


@dataclass(eq=False)
class Subscription:
    """The buffer of one client: at most `most_waiting` messages."""

    most_waiting: int
    queue: Message | None = None
    """The latest message about the queue, which has no place in the order of the others."""
    ended: bool = False
    """Nothing comes after what is buffered."""
    dropped: bool = False
    """The client was too slow, and its buffer was dropped."""
    _pages: list[EventBatch] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        return sum(len(page.messages) for page in self._pages)

    @property
    def is_over(self) -> bool:
        return self.dropped or (self.ended and not self._pages)

    def put(self, page: EventBatch) -> None:
        if self.waiting + len(page.messages) > self.most_waiting:
            self._pages.clear()
            self.dropped = True
        else:
            self._pages.append(page)
        self._changed.set()

    def put_queue(self, queue: Message) -> None:
        self.queue = queue
        self._changed.set()

    def end(self) -> None:
        self.ended = True
        self._changed.set()

    async def take(self, seconds: float) -> tuple[list[EventBatch], Message | None]:
        """The buffered pages and the message about the queue, as soon as there are any; none after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return [], None
        self._changed.clear()
        pages, self._pages, queue, self.queue = self._pages, [], self.queue, None
        return pages, queue


class StreamReader:
    """How far one client has read: it has every event and every step up to its cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.behind = True
        """The database has something that no later page will bring."""
        self._as_of = 0
        """The last event when it last read the database."""
        self._queue: tuple[int, str] | None = None

    def read(self, news: JobUpdate) -> bytes:
        """The messages that it reads from the database."""
        self.behind, self._as_of = False, news.end.seq
        return self._encode(map(message, news.events))

    def look_from(self, begin: Cursor) -> None:
        """Notes that it is behind if a page begins beyond what it has."""
        self.behind = self.cursor.seq < begin.seq or self.cursor.step < begin.step

    def take(self, pages: Iterable[EventBatch], queue: Message | None) -> bytes:
        """The messages of the pages that it does not have yet, up to a page that leaves a gap."""
        parts = []
        for page in pages:
            if page.as_of < self._as_of:
                continue  # It has read newer, and a retry may lie between: the next page tells whether it is behind.
            self.look_from(page.begin)
            if self.behind:
                break
            parts.append(self._encode(page.messages))
        if queue is not None:
            parts.append(self._encode([queue]))
        return b"".join(parts)

    def _encode(self, messages: Iterable[Message]) -> bytes:
        """Encodes the messages that the client does not have yet."""
        parts = []
        for each in messages:
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
