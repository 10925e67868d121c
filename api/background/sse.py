"""The messages of an event stream."""

import json
import time
from dataclasses import dataclass
from typing import Any

from api.jobs.schemas import Queue
from store.jobs.progress import StreamedEvent

HEARTBEAT = b": ping\n\n"


@dataclass(frozen=True, slots=True)
class Message:
    """Complete except for its id, which depends on what else a client has."""

    body: bytes
    seq: int = 0
    """Sequence number, of an event."""
    step: int = 0
    """Step, of a metric."""
    queue: tuple[int, str] | None = None
    """Position and reason, of a message about the queue."""


def message(event: StreamedEvent) -> Message:
    body = _body(event.type, event.data)
    cursor = event.cursor
    return Message(body, step=cursor.step) if event.type == "metric" else Message(body, seq=cursor.seq)


def queue_message(queue: Queue) -> Message:
    data = {"time": time.time(), **queue.model_dump(mode="json")}
    return Message(_body("queue", data), queue=(queue.position, queue.reason))


def _body(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n".encode()
