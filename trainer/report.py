"""Writes events.jsonl: one line for each happening, whole and at once, by rank 0 alone."""

import os
import time
from pathlib import Path
from typing import Any

from contract.events import Event


class Report:
    """`report(Metric, step=1, ...)` stamps the event with the time and appends it. Other ranks than 0 write nothing."""

    def __init__(self, path: Path, rank: int) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644) if rank == 0 else None

    def __call__(self, kind: type[Event], **fields: Any) -> None:
        if self._file is not None:
            line = kind(time=time.time(), **fields).model_dump_json() + "\n"
            # One write for one line: a reader never sees half of one that a later write completes.
            os.write(self._file, line.encode())
