"""The events of a job, as a page or as a stream."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context, Services
from api.errors import InvalidParameter
from api.http.ids import LARGEST_INTEGER, JobId
from store.access.principal import Principal
from store.jobs import jobs, progress
from store.jobs.progress import Cursor, StreamedEvent
from store.paging import page


class EventOut(BaseModel):
    id: str
    """As in the stream: the value of `after` for the next page."""
    type: str
    time: float
    """Seconds since the epoch."""
    data: dict[str, Any]


class EventPage(BaseModel):
    data: list[EventOut]
    """In the order of the stream."""
    has_more: bool


router = APIRouter(tags=["events"])

_EVENT_ID = re.compile(r"(\d{1,10})\.(\d{1,10})", re.ASCII)
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "As `type` in a page."},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "As `data` in a page."},
        "id": {"type": "string"},
    },
    "required": ["event", "data"],
}
"""Before OpenAPI 3.2 the schema of a stream is that of its events."""
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A stream of events, or with `Accept: application/json` a page of them.",
        "model": EventPage,
        "content": {"text/event-stream": {"schema": _EVENT}},
    }
}


async def _cursor(
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[str | None, Query(description="As Last-Event-ID, which takes precedence.")] = None,
) -> Cursor:
    name, given = ("Last-Event-ID", last_event_id) if last_event_id else ("after", after)
    if not given:
        return Cursor()
    parts = _EVENT_ID.fullmatch(given)
    cursor = Cursor(int(parts[1]), int(parts[2])) if parts else None
    if cursor is None or max(cursor) > LARGEST_INTEGER:
        raise InvalidParameter(name, given, "give the id of an event of this stream, or leave it out")
    return cursor


async def _wants_page(accept: Annotated[str, Header()] = "*/*") -> bool:
    return "application/json" in accept and "text/event-stream" not in accept


def _existing_job(services: Context, who: Who, job_id: JobId) -> str:
    """Once the stream has begun it is too late for a 404."""
    with services.sessions.begin() as session:
        return jobs.get(session, job_id, who.scope).id


# Each parameter is one of the request's.
@router.get("/jobs/{job_id}/events", response_class=Response, responses=_STREAM)
async def list_events(  # parameters: the request's
    services: Context,
    who: Who,
    job_id: Annotated[str, Depends(_existing_job)],
    cursor: Annotated[Cursor, Depends(_cursor)],
    wants_page: Annotated[bool, Depends(_wants_page)],
    limit: Annotated[int, Query(ge=1, le=1000, description="Of a page; a stream has none.")] = 100,
) -> Response:
    """All events of a job, from its start or after Last-Event-ID, until it has ended and all of them are sent. While it
    waits, an event "queue" gives its position and what it waits for, at the beginning and when these change.

    With `Accept: application/json` the events so far, a page at a time, with the same ids."""
    if wants_page:
        found = await run_in_threadpool(_page, services, who, job_id, cursor, limit)
        return Response(found.model_dump_json(), media_type="application/json")
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # a proxy is to pass each event on at once
    return StreamingResponse(services.live.stream(job_id, cursor), media_type="text/event-stream", headers=headers)


def _page(services: Services, who: Principal, job_id: str, cursor: Cursor, limit: int) -> EventPage:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        found = page(progress.events_since(session, job_id, cursor, limit + 1), limit)
    return EventPage(data=[event_out(event) for event in found.rows], has_more=found.has_more)


def event_out(each_event: StreamedEvent) -> EventOut:
    data = dict(each_event.data)
    cursor = each_event.cursor
    return EventOut(id=f"{cursor.seq}.{cursor.step}", type=each_event.type, time=data.pop("time"), data=data)
