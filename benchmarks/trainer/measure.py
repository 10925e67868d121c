"""Runs a command and watches the memory of all its processes."""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.1
"""Seconds between two looks. A look reads a few small files of /proc: less than a hundredth of a core."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
                running = descendants(process.pid)
                peak = max(peak, sum(map(resident_bytes, running)))
                time.sleep(INTERVAL)
        finally:
            ended = time.time()
            if process.poll() is None:
                for pid in descendants(process.pid) | {process.pid}:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, 9)
            process.wait()
    return Watched(launched, ended - launched, peak, process.returncode)


def descendants(pid: int) -> set[int]:
    """With the process itself; those that end meanwhile may be among them."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found |= descendants(int(child))
    return found


def resident_bytes(pid: int) -> int:
    """0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
