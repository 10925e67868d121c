"""Rank 0 reports events: a line of events.jsonl for the service, and a line of the log for people."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from contract.events import Event, MetricEvent, event_data


class EventWriter:
    """`report(MetricEvent, step=1, ...)` stamps an event with the time and appends it. Ranks other than 0 write
    nothing."""

    def __init__(self, path: Path, rank: int) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644) if rank == 0 else None
        self.step: int | None = None
        """The last step that this process has taken."""

    def __call__(self, kind: type[Event], **fields: Any) -> None:
        if kind is MetricEvent:
            self.step = fields["step"]
        if self._file is not None:
            event = kind(time=time.time(), **fields)
            # One write per line, so that a reader sees it complete. A full disk takes a part of it without an error,
            # and fails on the rest.
            line = f"{event.model_dump_json()}\n".encode()
            while line:
                line = line[os.write(self._file, line) :]
            sys.stdout.write(f"{_for_people(event)}\n")
            sys.stdout.flush()


def _for_people(event: Event) -> str:
    """The event as a log line, such as "12:13:20 metric step=1 loss=4.86611"."""
    clock = time.strftime("%H:%M:%S", time.localtime(event.time))
    # Scores are those of a base class, which come before the step on the wire.
    data = sorted(event_data(event).items(), key=lambda field: field[0] not in type(event).__annotations__)
    fields = (f"{name}={_short(value)}" for name, value in data if value is not None)
    return f"{clock} {event.type} {' '.join(fields)}"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
