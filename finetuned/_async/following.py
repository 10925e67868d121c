"""Follows a job's event stream, across broken connections."""

import json
from collections.abc import AsyncIterator, Callable

import httpx

from finetuned.errors import Refused, Unreachable, error_of
from finetuned.events import JobEvent
from finetuned.pauses import pause_async
from finetuned.sse import EventParser
from finetuned.status import TERMINAL

_SILENCE_SECONDS = 45.0  # the service sends a comment at least every 15 s
_PAUSES_SECONDS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0)


async def follow_async(
    http: httpx.AsyncClient, path: str, after: str, reconnecting: Callable[[str], None]
) -> AsyncIterator[JobEvent]:
    """Yields every event of the stream at `path` after the id `after` once, until the job has ended.

    Reconnects where the connection broke, and calls `reconnecting` with a line about it. Raises Unreachable after
    30 s without an event, and Refused.
    """
    # A retry library does not fit: the waits start again after each event, and the loop yields in between.
    last_id, failures, ended = after, 0, False
    while True:
        try:
            async for event in _read_stream(http, path, last_id):
                last_id, failures = event.id, 0
                # The service ends the stream, not this status: older events may follow it, and so may a retry.
                if event.type == "status":
                    ended = event.data["status"] in TERMINAL
                yield event
            if ended or (after and last_id == after):  # or nothing followed the last event
                return
            problem: Exception = ConnectionError("the stream ended early")
        except httpx.TransportError as error:
            problem = error
        except Refused as error:
            if error.status < 500:
                raise
            problem = error
        url = str(http.base_url).rstrip("/")
        if failures == len(_PAUSES_SECONDS):
            raise Unreachable(url, problem) from problem
        reconnecting(f"lost the connection to {url} ({problem or type(problem).__name__}); trying again")
        await pause_async(_PAUSES_SECONDS[failures])
        failures += 1


async def _read_stream(http: httpx.AsyncClient, path: str, last_id: str) -> AsyncIterator[JobEvent]:
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
    async with http.stream("GET", path, headers=headers, timeout=_SILENCE_SECONDS) as response:
        if not response.is_success:
            await response.aread()
            raise error_of(response)
        parser = EventParser()
        async for line in response.aiter_lines():
            if (event := parser.feed(line)) is not None:
                data = json.loads(event.data)
                yield JobEvent(event.event, data.pop("time", 0.0), data, event.id)
