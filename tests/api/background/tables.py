"""The live table of jobs as a page reads it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from api.background.job_table import JobTable, TablePace, Viewer
from api.jobs.schemas import JobChanges, JobSummary
from store.session import Sessions

FAST = TablePace(look_seconds=0.02, queue_seconds=0.02)
ADMIN = Viewer(None, True)
SECONDS = 20


class Table:
    """What a page makes of a stream."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self.stream = stream
        self.jobs: dict[str, dict[str, Any]] = {}
        self.id = ""
        self.resets = 0
        self.bytes = 0

    async def take(self) -> dict[str, Any]:
        """The next event, which must bring something new of each of its jobs."""
        async with asyncio.timeout(SECONDS):
            while (chunk := await anext(self.stream)) == b": ping\n\n":
                pass
        self.bytes += len(chunk)
        kind, data, self.id = (line.partition(": ")[2] for line in chunk.decode().strip().split("\n"))
        assert kind == "jobs"
        event: dict[str, Any] = json.loads(data)
        JobChanges.model_validate(event)
        for job in event["jobs"]:
            assert job.keys() == JobSummary.model_fields.keys()
            assert event["reset"] or self.jobs.get(job["id"]) != job
        if event["reset"]:
            self.jobs, self.resets = {}, self.resets + 1
        self.jobs |= {job["id"]: job for job in event["jobs"]}
        for job_id in event.get("deleted", []):
            self.jobs.pop(job_id, None)
        return event

    async def until(self, condition: Callable[[dict[str, dict[str, Any]]], Any]) -> None:
        while not condition(self.jobs):
            await self.take()

    async def close(self) -> None:
        await self.stream.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def running(sessions: Sessions, pace: TablePace = FAST) -> AsyncIterator[JobTable]:
    table = JobTable(sessions, pace)
    task = asyncio.create_task(table.run())
    try:
        yield table
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())
