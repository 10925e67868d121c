import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.deps import LARGEST_INTEGER, Db, JobId
from api.errors import InvalidParameter
from api.schemas.jobs import Queue
from api.services import jobs as service
from api.who import Who
from contract.status import TERMINAL, JobStatus
from store.progress import Cursor

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
QUEUE_SECONDS = 3.0  # between two looks at the queue, which cost more
PAGE = 500

_EVENT_ID = re.compile(r"(\d{1,10})\.(\d{1,10})", re.ASCII)


def _cursor(last_event_id: Annotated[str | None, Header()] = None) -> Cursor:
    if not last_event_id:
        return Cursor()
    parts = _EVENT_ID.fullmatch(last_event_id)
    cursor = Cursor(int(parts[1]), int(parts[2])) if parts else None
    if cursor is None or max(cursor) > LARGEST_INTEGER:
        wanted = "give the id of an event of this stream, or leave it out"
        raise InvalidParameter("Last-Event-ID", last_event_id, wanted)
    return cursor


def _existing_job(db: Db, who: Who, job_id: JobId) -> str:
    """Once the stream has begun it is too late for a 404."""
    return service.get(db, who, job_id).id


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def events(
    db: Db, who: Who, job_id: Annotated[str, Depends(_existing_job)], cursor: Annotated[Cursor, Depends(_cursor)]
) -> AsyncIterator[ServerSentEvent]:
    """All that happens to a job, from its start or after Last-Event-ID, until it has ended and all is told. While it
    waits, an event "queue" tells of its place and what it waits for, at the beginning and when these change."""
    told: Queue | None = None
    look = 0.0
    while True:
        # The status is read before the events: a job that has ended by then has told all, so that none of it is missed.
        page, status = await run_in_threadpool(service.events_after, db, job_id, cursor, PAGE)
        for happening in page:
            cursor = happening.cursor
            yield ServerSentEvent(event=happening.type, id=f"{cursor.seq}.{cursor.step}", data=happening.data)
        if len(page) == PAGE:
            continue
        if status in TERMINAL:
            return
        if status is JobStatus.QUEUED and time.monotonic() >= look:
            look = time.monotonic() + QUEUE_SECONDS
            queue = await run_in_threadpool(service.queue_of, db, who, job_id)
            if queue is not None and (told is None or (queue.place, queue.why) != (told.place, told.why)):
                told = queue
                data = {"time": time.time(), **queue.model_dump(mode="json")}
                yield ServerSentEvent(event="queue", id=f"{cursor.seq}.{cursor.step}", data=data)
        await asyncio.sleep(POLL_SECONDS)
