"""Runs a command and watches the memory of all its processes."""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

INTERVAL = 0.1
"""Seconds between two looks, of a few milliseconds each."""


@dataclass(frozen=True)
class Watched:
    launched: float
    """Seconds since the epoch."""
    seconds: float
    peak_bytes: int
    """The largest sum of the resident sets (RSS) of the command and its descendants at one look. What two of them
    share counts for both."""
    returncode: int


def watch(command: list[str], folder: Path, log: Path, environment: dict[str, str], limit: float) -> Watched:
    """Kills what runs longer than `limit` seconds."""
    peak = 0
    with log.open("wb") as output:
        launched = time.time()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.time() < launched + limit:
                peak = max(peak, sum(map(_resident_bytes, _tree(process.pid))))
                time.sleep(INTERVAL)
        finally:
            ended = time.time()
            if process.poll() is None:
                for each in _tree(process.pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait()
    return Watched(launched, ended - launched, peak, process.returncode)


def _tree(pid: int) -> list[psutil.Process]:
    """With the process itself; those that end meanwhile may be among them."""
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    return []


def _resident_bytes(process: psutil.Process) -> int:
    """0 where it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
