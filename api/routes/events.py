import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from api.deps import LARGEST_INTEGER, Db, JobId
from api.errors import InvalidParameter
from api.live import Live
from api.schemas.events import EventPage
from api.services import events as service
from api.who import Who
from store.jobs.progress import Cursor

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


async def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


async def _cursor(
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[str | None, Query(description="As Last-Event-ID, which goes before it.")] = None,
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


def _existing_job(db: Db, who: Who, job_id: JobId) -> str:
    """Once the stream has begun it is too late for a 404."""
    return service.check_job(db, who, job_id)


@router.get("/jobs/{job_id}/events", response_class=Response, responses=_STREAM)
async def events(
    db: Db,
    who: Who,
    live: Annotated[Live, Depends(_live)],
    job_id: Annotated[str, Depends(_existing_job)],
    cursor: Annotated[Cursor, Depends(_cursor)],
    wants_page: Annotated[bool, Depends(_wants_page)],
    limit: Annotated[int, Query(ge=1, le=1000, description="Of a page; a stream has none.")] = 100,
) -> Response:
    """All that happens to a job, from its start or after Last-Event-ID, until it has ended and all is told. While it
    waits, an event "queue" tells of its place and what it waits for, at the beginning and when these change.

    With `Accept: application/json` the events that there are, a page at a time, with the same ids."""
    if wants_page:
        page = await run_in_threadpool(service.page, db, who, job_id, cursor, limit)
        return Response(page.model_dump_json(), media_type="application/json")
    headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # a proxy is to pass each event on at once
    return StreamingResponse(live.stream(job_id, cursor), media_type="text/event-stream", headers=headers)
