"""Whole event streams, as the client reads them line by line."""

from collections.abc import Iterable, Iterator

from finetuned.sse import EventParser, ServerSentEvent


def parse_events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """Yields the events in the lines of a stream. Drops an event that the end of the stream cuts off."""
    parser = EventParser()
    return filter(None, map(parser.feed, lines))
