"""Follows a file of events while another process appends to it."""

import logging
from pathlib import Path

from pydantic import ValidationError

from contract.events import Event, parse_event

log = logging.getLogger(__name__)

_CHUNK = 1 << 20


class Tail:
    """Reads whole lines, each once; the rest of a line that is still being written waits for the next read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """The events appended since the last read, at most about a megabyte of them; none before the file is there."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                chunk = file.read(_CHUNK)
        except FileNotFoundError:
            return []
        whole, newline, _ = chunk.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        return [event for line in whole.splitlines() if (event := self._parse(line)) is not None]

    def _parse(self, line: bytes) -> Event | None:
        try:
            return parse_event(line)
        except ValidationError as error:
            log.warning("%s has a line that is no event: %s", self._path, error)
            return None
