"""What one client of an event stream has, and what waits for it."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from api.background.sse import Message, message
from store.jobs.progress import Cursor, News


@dataclass(frozen=True)
class Page:
    """Messages that one look found about one job."""

    begin: Cursor
    """Where the look began. A client that is not so far yet would lack what is between."""
    as_of: int
    """The last event that there was."""
    messages: list[Message]


@dataclass(eq=False)
class Subscription:
    """What waits for one client: at most `most_waiting` messages."""

    most_waiting: int
    queue: Message | None = None
    """The latest about the queue. It has no place in the order of the others."""
    ended: bool = False
    """Nothing comes after what waits."""
    dropped: bool = False
    """The client took too little, and nothing waits for it any more."""
    _pages: list[Page] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> int:
        return sum(len(page.messages) for page in self._pages)

    @property
    def is_over(self) -> bool:
        return self.dropped or (self.ended and not self._pages)

    def put(self, page: Page) -> None:
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

    async def take(self, seconds: float) -> tuple[list[Page], Message | None]:
        """The pages and the message about the queue that wait, as soon as there are any, or none after so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return [], None
        self._changed.clear()
        pages, self._pages, queue, self.queue = self._pages, [], self.queue, None
        return pages, queue


class Client:
    """How far one client has come. It has every event and every step up to its cursor."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.behind = True
        """The database has something that no later page brings."""
        self._as_of = 0
        """The last event that there was when it last read the database."""
        self._queue: tuple[int, str] | None = None

    def read(self, news: News) -> bytes:
        """The messages that the database has for it."""
        self.behind, self._as_of = False, news.end.seq
        return self._encode(map(message, news.happenings))

    def look_from(self, begin: Cursor) -> None:
        """It is behind where a page begins beyond what it has."""
        self.behind = self.cursor.seq < begin.seq or self.cursor.step < begin.step

    def take(self, pages: Iterable[Page], queue: Message | None) -> bytes:
        """The messages of the pages that it does not have yet, up to a page at which it is behind."""
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
        """Those that the client does not have yet."""
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
