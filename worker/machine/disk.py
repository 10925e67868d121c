"""Measures the free space of the folders that attempts write to."""

import logging
import shutil
import threading
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from contract.machine import Disk

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_MEASURES = 5.0

_CLEARED_AT = 1.1
"""Times the reserve. A disk that is low counts as low until so much is free, so that jobs do not start and stop with
every file that comes and goes."""


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class DiskWatch:
    """Measures in a thread of its own: a network disk that hangs must not delay heartbeats."""

    def __init__(self, home: Path, reserve: int) -> None:
        """`reserve`: bytes below which the disk is low; 0 for never."""
        self._home = home
        self._reserve = reserve
        self.latest: Disk | None = None
        """The latest measure; None before the first one."""

    def run(self, stopping: threading.Event) -> None:
        """Measures every few seconds until `stopping` is set."""
        while not stopping.wait(_SECONDS_BETWEEN_MEASURES):
            self.measure()

    def measure(self) -> None:
        try:
            used = self._usage()
        except OSError as error:
            log.warning("the free space of %s is unknown: %s", self._home, error)
            return
        was_low = self.latest is not None and self.latest.low
        low = used.free < self._reserve * (_CLEARED_AT if was_low else 1)
        if low != was_low:
            words = "no attempt starts here until more is free" if low else "attempts start here again"
            log.warning("%s has %s bytes free, and the reserve is %s: %s", self._home, used.free, self._reserve, words)
        self.latest = Disk(free_bytes=used.free, total_bytes=used.total, reserve_bytes=self._reserve, low=low)

    def _usage(self) -> Usage:
        """That of the disk with the least room, as the runs folder may be a link to another one."""
        runs = self._home / "runs"
        folders = [self._home, runs] if runs.exists() else [self._home]
        return min((Usage(*shutil.disk_usage(each)) for each in folders), key=attrgetter("free"))
