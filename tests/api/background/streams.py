"""Jobs whose events are streamed, and what a client reads of them."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from contract.events import Event, LogEvent, StartedEvent
from contract.failure import Failure
from contract.status import JobStatus
from store.jobs import jobs, progress
from store.jobs.attempts import AttemptEnd, finish
from store.jobs.progress import Cursor
from store.models import Job
from store.session import Sessions
from tests.support import fake_trainer
from tests.support.jobs import RETRIES, claim, make_recipe, record_events

Received = tuple[str, Cursor, dict[str, Any]]


def running_job(sessions: Sessions) -> Job:
    with sessions.begin() as session:
        jobs.create(session, make_recipe())
        job = claim(session)
    assert job is not None
    return job


def record(sessions: Sessions, job: Job, *events: Event) -> None:
    record_events(sessions, job.id, *events, attempt=job.attempt)


def end(sessions: Sessions, job: Job, failure: Failure | None = None) -> None:
    with sessions.begin() as session:
        status = JobStatus.FAILED if failure else JobStatus.SUCCEEDED
        finish(session, job.id, job.attempt, AttemptEnd(status, failure), RETRIES)


def started(resumed: int = 0) -> StartedEvent:
    return fake_trainer.started(1000, resumed)


def log_line(number: int = 0) -> LogEvent:
    return LogEvent(time=number, level="info", message=f"line {number}")


def parse(chunk: bytes) -> Iterator[Received]:
    for block in chunk.decode().split("\n\n"):
        if block and not block.startswith(":"):
            reported = dict(each.split(": ", 1) for each in block.splitlines())
            yield reported["event"], Cursor(*map(int, reported["id"].split("."))), json.loads(reported["data"])


async def wait_until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def read_all(sessions: Sessions, job_id: str) -> list[Received]:
    with sessions.begin() as session:
        return [
            (each.type, each.cursor, each.data) for each in progress.events_since(session, job_id, Cursor(), 100_000)
        ]
