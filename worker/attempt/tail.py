"""Follows a file of events while another process appends to it."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from contract.events import Event, LogEvent, parse_event
from runtime.logs import redact

log = logging.getLogger(__name__)

_BATCH_BYTES = 1 << 20
"""A read ends at the first line after so many bytes."""


class Tail:
    """Reads complete lines, each once. A line that is still being written waits for the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """The events appended since the last read, up to about a megabyte; none while the file does not exist."""
        lines = list(self._complete_lines())
        return [event for line in lines if (event := self._parse(line)) is not None]

    def _complete_lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                end = self._offset + _BATCH_BYTES
                for line in file:
                    if not line.endswith(b"\n") or self._offset > end:
                        return
                    self._offset += len(line)
                    yield line
        except FileNotFoundError:
            return

    def _parse(self, line: bytes) -> Event | None:
        try:
            event = parse_event(line)
        except ValidationError as error:
            log.warning("%s contains a line that is not an event: %s", self._path, error)
            return None
        if isinstance(event, LogEvent):
            return event.model_copy(update={"message": redact(event.message)})
        return event
