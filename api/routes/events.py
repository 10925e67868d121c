import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.deps import Db
from contract.failure import FailureReason, InputError
from contract.status import TERMINAL
from store import jobs, progress
from store.progress import Cursor, Happening
from store.session import Sessions

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
PAGE = 500


def _cursor(last_event_id: Annotated[str | None, Header()] = None) -> Cursor:
    if last_event_id is None:
        return Cursor()
    try:
        seq, step = map(int, last_event_id.split("."))
    except ValueError as error:
        message = f"Last-Event-ID: got {last_event_id!r}; give the id of an event of this stream, or leave it out"
        raise InputError(FailureReason.RECIPE_INVALID, message, "Last-Event-ID") from error
    return Cursor(seq, step)


def _existing_job(db: Db, job_id: str) -> str:
    with db.begin() as session:
        return jobs.get(session, job_id).id


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def events(
    db: Db, job_id: Annotated[str, Depends(_existing_job)], cursor: Annotated[Cursor, Depends(_cursor)]
) -> AsyncIterator[ServerSentEvent]:
    """All that happens to a job, from its start or after Last-Event-ID, until it has ended."""
    while True:
        page = await run_in_threadpool(_since, db, job_id, cursor)
        for happening in page:
            cursor = happening.cursor
            yield ServerSentEvent(event=happening.type, id=f"{cursor.seq}.{cursor.step}", data=happening.data)
            if happening.type == "status" and happening.data["status"] in TERMINAL:
                return
        if len(page) < PAGE:
            await asyncio.sleep(POLL_SECONDS)


def _since(sessions: Sessions, job_id: str, cursor: Cursor) -> list[Happening]:
    with sessions.begin() as session:
        return progress.events_since(session, job_id, cursor, PAGE)
