"""The live table of jobs, for any number of clients: one look a second at what has changed, for all of them.

Each look gives what it found the next version number. A client has all changes up to a version and takes those after
it, of each job only the latest: a slow client falls behind by nothing but time, and nothing is buffered for it.
"""

import asyncio
import json
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from api.background.sse import HEARTBEAT
from api.jobs.schemas import with_queue
from api.jobs.view import Waits, cluster_wait, waits_of_queue
from contract.status import JobStatus
from store.jobs import summaries
from store.jobs.summaries import Changes, Summary
from store.scheduling.situation import Wait
from store.session import Sessions, autocommit

log = logging.getLogger(__name__)

_ID = re.compile(r"([0-9a-f]{8})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class TablePace:
    look_seconds: float = 1.0
    queue_seconds: float = 3.0
    """Time between two plans of the queue, which cost more."""
    heartbeat_seconds: float = 15.0
    idle_seconds: float = 600.0
    """After so long without a look it begins anew, as a restarted API does."""
    newest: int = 1000
    """Jobs that a client gets at first, besides those that have not ended."""
    most_ended: int = 5000
    """Changes of ended and deleted jobs that are kept for clients that come back."""


@dataclass(frozen=True)
class Viewer:
    """Whose jobs a client sees."""

    owner: str | None
    """None for the jobs of all owners."""
    admin: bool

    def sees(self, owner: str) -> bool:
        return self.owner in (None, owner)


@dataclass
class _Entry:
    owner: str
    summary: Summary | None
    """None for a deleted job."""
    version: int = 0
    body: str = ""
    """As its owner reads it."""
    admins: str = ""
    """As admins read it: with the ids of other owners' jobs."""


class JobTable:
    def __init__(self, sessions: Sessions, pace: TablePace = TablePace()) -> None:
        self.clients = 0
        self._sessions, self._pace = sessions, pace
        self._any_clients, self._looked, self._changed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._first_client = asyncio.Event()
        # A look and a client's first list exclude each other: the list is of one version.
        self._lock, self._reader = asyncio.Lock(), CapacityLimiter(1)
        self._begin_anew(0)
        self._looked_at = self._planned_at = float("-inf")

    def restarted(self) -> "JobTable":
        """Another one, for another event loop."""
        return JobTable(self._sessions, self._pace)

    def _begin_anew(self, version: int) -> None:
        self._epoch = secrets.token_hex(4)
        self._version = self._floor = version
        self._position: int | None = None
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._devices: dict[str, list[str]] = {}
        self._waits: Waits = {}

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            await self._any_clients.wait()
            self._first_client.clear()
            try:
                async with self._lock:
                    await self._look()
                self._looked.set()
            except (OperationalError, NoConnectionFree) as error:
                log.warning("the table of jobs waits, the database is unavailable: %s", error)
            except Exception:
                log.exception("the table of jobs waits; the next look will find what is new")
            await _happens(self._first_client, self._pace.look_seconds)

    async def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at > self._pace.idle_seconds:
            self._begin_anew(self._version)
        first = self._position is None
        found = await to_thread.run_sync(partial(_read, self._sessions, self._position), limiter=self._reader)
        changed = {summary.id: summary for summary in found.summaries}
        waits = await self._plan(now, changed.values())
        again = _differing(self._devices, found.devices) | _replanned(self._waits, waits)
        missing = again - changed.keys() - self._entries.keys()
        if missing:
            got = await to_thread.run_sync(partial(_get, self._sessions, missing), limiter=self._reader)
            changed |= {summary.id: summary for summary in got}
        self._position, self._devices, self._waits = found.position, found.devices, waits
        version = self._version + (not first)
        moved = [self._put(changed.get(job_id), job_id, version) for job_id in changed.keys() | again]
        moved += [self._delete(job_id, owner, version) for job_id, owner in found.deleted]
        self._looked_at = now
        if any(moved) and not first:
            self._version = version
        self._forget_ended()
        if any(moved) or first:
            self._changed.set()
            self._changed = asyncio.Event()

    async def _plan(self, now: float, changed: Collection[Summary]) -> Waits:
        """What the queued jobs wait for; as before where nothing is queued or the last plan is recent."""
        queued = {job_id for job_id, entry in self._entries.items() if entry.summary and _waits(entry.summary)}
        queued = queued - {each.id for each in changed} | {each.id for each in changed if _waits(each)}
        if queued and now - self._planned_at >= self._pace.queue_seconds:
            self._planned_at = now
            return await to_thread.run_sync(partial(waits_of_queue, self._sessions), limiter=self._reader)
        return {job_id: wait for job_id, wait in self._waits.items() if job_id in queued}

    def _put(self, summary: Summary | None, job_id: str, version: int) -> bool:
        """Whether it differs from what clients have."""
        entry = self._entries.get(job_id)
        summary = summary or (entry.summary if entry else None)
        if summary is None:  # it has been deleted
            return False
        own, admins = self._bodies(summary)
        if entry is not None and entry.summary is not None and (entry.body, entry.admins) == (own, admins):
            entry.summary = summary
            return False
        self._entries[job_id] = _Entry(summary.owner, summary, version, own, admins)
        self._entries.move_to_end(job_id)
        return True

    def _delete(self, job_id: str, owner: str, version: int) -> bool:
        entry = self._entries.get(job_id)
        if entry is not None and entry.summary is None:
            return False
        self._entries[job_id] = _Entry(owner, None, version)
        self._entries.move_to_end(job_id)
        return True

    def _bodies(self, summary: Summary) -> tuple[str, str]:
        """As the owner reads it, and as admins do."""
        devices = json.dumps(self._devices.get(summary.id, []))
        found = self._waits.get(summary.id) if _waits(summary) else None
        body = f'{summary.body.rstrip()[:-1]}, "devices" : {devices}}}'
        if found is None:
            return (with_queue(body, cluster_wait(summary)),) * 2
        return with_queue(body, found[0]), with_queue(body, found[1])

    def _forget_ended(self) -> None:
        if len(self._entries) <= self._pace.most_ended:
            return
        ended = [job_id for job_id, entry in self._entries.items() if entry.summary is None or _is_over(entry.summary)]
        for job_id in ended[: max(0, len(ended) - self._pace.most_ended)]:
            self._floor = max(self._floor, self._entries.pop(job_id).version)

    async def stream(self, viewer: Viewer, last_event_id: str | None) -> AsyncIterator[bytes]:
        """All summaries that the viewer may see, and then those that change, as an event stream without an end. An
        unavailable database ends no stream."""
        known = _ID.fullmatch(last_event_id or "")
        epoch, version = (known[1], int(known[2])) if known else ("", 0)
        sent: dict[str, str] = {}
        self._join()
        try:
            while True:
                changed = self._changed
                if not self._looked.is_set():
                    if not await _happens(self._looked, self._pace.heartbeat_seconds):
                        yield HEARTBEAT
                    continue
                if epoch != self._epoch or not self._floor <= version <= self._version:
                    listed = await self._list(viewer)
                    if listed is None:
                        yield HEARTBEAT
                        await asyncio.sleep(self._pace.look_seconds)
                        continue
                    (epoch, version), sent = listed
                    yield _message(epoch, version, sent.values(), None)
                elif version < self._version:
                    jobs, deleted = self._after(version, viewer, sent)
                    version, sent = self._version, {}
                    if jobs or deleted:
                        yield _message(epoch, version, jobs, deleted)
                elif not await _happens(changed, self._pace.heartbeat_seconds):
                    yield HEARTBEAT
        finally:
            self._leave()

    def _join(self) -> None:
        if not self.clients:
            self._first_client.set()  # it does not wait for the time between two looks
        self.clients += 1
        self._any_clients.set()

    def _leave(self) -> None:
        self.clients -= 1
        if not self.clients:
            self._any_clients.clear()
            self._looked.clear()  # the next client waits for a look

    async def _list(self, viewer: Viewer) -> tuple[tuple[str, int], dict[str, str]] | None:
        """The position of a first list, and its texts by id. None where the database is unavailable."""

        def read() -> dict[str, str]:
            found = _list(self._sessions, viewer.owner, self._pace.newest)
            return {each.id: self._bodies(each)[viewer.admin] for each in found}

        async with self._lock:
            try:
                listed = await to_thread.run_sync(read, limiter=self._reader)
            except (OperationalError, NoConnectionFree) as error:
                log.warning("a table of jobs waits, the database is unavailable: %s", error)
                return None
            return (self._epoch, self._version), listed

    def _after(self, version: int, viewer: Viewer, sent: dict[str, str]) -> tuple[list[str], list[str]]:
        """The texts that are new after a version, newest change first, and the ids of deleted jobs."""
        jobs, deleted = [], []
        for job_id, entry in reversed(self._entries.items()):
            if entry.version <= version:
                break
            if not viewer.sees(entry.owner):
                continue
            body = entry.admins if viewer.admin else entry.body
            if entry.summary is None:
                deleted.append(job_id)
            elif sent.get(job_id) != body:  # else the first list had it already
                jobs.append(body)
        return jobs, deleted


def _read(sessions: Sessions, position: int | None) -> Changes:
    with autocommit(sessions) as connection:
        return summaries.read_changes(connection, position)


def _get(sessions: Sessions, job_ids: Collection[str]) -> list[Summary]:
    with autocommit(sessions) as connection:
        return summaries.get_summaries(connection, job_ids)


def _list(sessions: Sessions, owner: str | None, limit: int) -> Sequence[Summary]:
    with autocommit(sessions) as connection:
        return summaries.list_newest(connection, owner, limit)


def _waits(summary: Summary) -> bool:
    return summary.status == JobStatus.QUEUED


def _is_over(summary: Summary) -> bool:
    return summary.status in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


def _differing(before: dict[str, list[str]], now: dict[str, list[str]]) -> set[str]:
    return {job_id for job_id in before.keys() | now.keys() if before.get(job_id) != now.get(job_id)}


_SAME_ESTIMATE = 60.0
"""Seconds. An estimate moves a little with each plan: on its own that is no news."""


def _replanned(before: Waits, now: Waits) -> set[str]:
    """The jobs whose place or reason has changed. The others keep the estimate that clients have."""
    changed = set()
    for job_id, (_, wait) in now.items():
        known = before.get(job_id)
        if known is None or _is_news(known[1], wait):
            changed.add(job_id)
        else:
            now[job_id] = known
    return changed


def _is_news(old: Wait, new: Wait) -> bool:
    if (old.position, old.reason) != (new.position, new.reason):
        return True
    if old.estimated_start is None or new.estimated_start is None:
        return old.estimated_start is not new.estimated_start
    return abs(old.estimated_start - new.estimated_start) > _SAME_ESTIMATE


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _message(epoch: str, version: int, jobs: Iterable[str], deleted: Sequence[str] | None) -> bytes:
    rest = '"reset": true' if deleted is None else f'"deleted": {json.dumps(deleted)}, "reset": false'
    data = f'{{"jobs": [{", ".join(jobs)}], {rest}}}'
    return f"event: jobs\ndata: {data}\nid: {epoch}.{version}\n\n".encode()
