"""Runs a command and watches the memory of all its processes."""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
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
    processor: list[tuple[float, float]]
    """At each look, the time, and the seconds of processor time that the processes had taken."""

    def processor_seconds(self, start: float, end: float) -> float:
        """What they took between two times, evenly between one look and the next."""
        times, seconds = zip(*self.processor, strict=True)
        before, after = numpy.interp([start, end], times, seconds).tolist()
        return float(after - before)


def watch(command: list[str], folder: Path, log: Path, environment: dict[str, str], limit: float) -> Watched:
    """Kills what runs longer than `limit` seconds."""
    peak, processor = 0, []
    with log.open("wb") as output:
        launched = time.time()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.time() < launched + limit:
                tree = _tree(process.pid)
                peak = max(peak, sum(map(_resident_bytes, tree)))
                processor.append((time.time(), sum(map(_processor_seconds, tree))))
                time.sleep(INTERVAL)
        finally:
            ended = time.time()
            if process.poll() is None:
                for each in _tree(process.pid):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        each.kill()
            process.wait()
    return Watched(launched, ended - launched, peak, process.returncode, processor)


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


def _processor_seconds(process: psutil.Process) -> float:
    """In user and system mode; 0 where it has ended."""
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.NoSuchProcess:
        return 0.0
