"""Follows a job's event stream, across broken connections."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from finetuned.errors import Refused, Unreachable, raise_for_error
from finetuned.sse import parse_events
from finetuned.status import TERMINAL

_SILENCE_SECONDS = 45.0  # the service sends a comment at least every 15 s
_WAIT_SECONDS = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True)
class JobEvent:
    type: str
    """One of "status", "queue" and "retry", or the type of an event of the trainer, such as "metric"."""
    time: float
    """Seconds since the epoch."""
    data: dict[str, Any]
    """Fields of this type of event."""


def follow(http: httpx.Client, path: str, reconnecting: Callable[[str], None]) -> Iterator[JobEvent]:
    """Yields every event of the stream at `path` once, until the job has ended.

    Reconnects where the connection broke, and calls `reconnecting` with a line about it. Raises Unreachable after
    30 s without an event, and Refused.
    """
    # A retry library does not fit: the waits start again after each event, and the loop yields in between.
    last_id, failures, ended = "", 0, False
    while True:
        try:
            for event_id, event in _read_stream(http, path, last_id):
                last_id, failures = event_id, 0
                # The service ends the stream, not this status: older events may follow it, and so may a retry.
                if event.type == "status":
                    ended = event.data["status"] in TERMINAL
                yield event
            if ended:
                return
            problem: Exception = ConnectionError("the stream ended early")
        except httpx.TransportError as error:
            problem = error
        except Refused as error:
            if error.status < 500:
                raise
            problem = error
        url = str(http.base_url).rstrip("/")
        if failures == len(_WAIT_SECONDS):
            raise Unreachable(url, problem) from problem
        reconnecting(f"lost the connection to {url} ({problem or type(problem).__name__}); trying again")
        time.sleep(_WAIT_SECONDS[failures])
        failures += 1


def _read_stream(http: httpx.Client, path: str, last_id: str) -> Iterator[tuple[str, JobEvent]]:
    headers = {"accept": "text/event-stream"} | ({"last-event-id": last_id} if last_id else {})
    with http.stream("GET", path, headers=headers, timeout=_SILENCE_SECONDS) as response:
        raise_for_error(response)
        for event in parse_events(response.iter_lines()):
            data = json.loads(event.data)
            yield event.id, JobEvent(event.event, data.pop("time", 0.0), data)
