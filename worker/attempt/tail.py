"""Follows a file of events while another process appends to it."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from contract.events import Event, Log, parse_event
from runtime.logs import without_secrets

log = logging.getLogger(__name__)

_ENOUGH = 1 << 20
"""Bytes after which a read ends at the next line."""


class Tail:
    """Reads whole lines, each once; the rest of a line that is still being written waits for the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """The events appended since the last read, up to about a megabyte of them; none before the file is there."""
        lines = list(self._whole_lines())
        return [event for line in lines if (event := self._parse(line)) is not None]

    def _whole_lines(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                end = self._offset + _ENOUGH
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
            log.warning("%s has a line that is no event: %s", self._path, error)
            return None
        if isinstance(event, Log):
            return event.model_copy(update={"message": without_secrets(event.message)})
        return event
