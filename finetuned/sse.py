"""Parses an event stream: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    event: str
    data: str
    id: str
    """The last id that the server has sent, to send back as Last-Event-ID."""


def parse_events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Yields the events in the lines of a stream, which come without line ends. Drops comments, and an event that the
    end of the stream cuts off."""
    event, data, last_id = "", list[str](), ""
    for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(event or "message", "\n".join(data), last_id)
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value
