from typing import Any

from pydantic import BaseModel

from store.jobs.progress import Happening


class EventOut(BaseModel):
    id: str
    """As in the stream: what to ask for what comes after it."""
    type: str
    time: float
    """Seconds since the epoch."""
    data: dict[str, Any]


class EventPage(BaseModel):
    data: list[EventOut]
    """In the order of the stream."""
    has_more: bool


def event_out(happening: Happening) -> EventOut:
    data = dict(happening.data)
    cursor = happening.cursor
    return EventOut(id=f"{cursor.seq}.{cursor.step}", type=happening.type, time=data.pop("time"), data=data)
