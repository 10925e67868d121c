"""Parses an event stream: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServerSentEvent:
    event: str
    data: str
    id: str
    """The last id that the server has sent, to send back as Last-Event-ID."""


class EventParser:
    """Takes the lines of a stream, which come without line ends."""

    def __init__(self) -> None:
        self._event, self._data, self._last_id = "", list[str](), ""

    def feed(self, line: str) -> ServerSentEvent | None:
        """Takes a line; gives the event that it completes."""
        if not line:
            event, data, self._event, self._data = self._event, self._data, "", []
            return ServerSentEvent(event or "message", "\n".join(data), self._last_id) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._last_id = value
        return None
