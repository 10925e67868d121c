"""Finds a trainer's processes by the marks in their environment, and ends those that nobody follows any more."""

import os
import signal
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from worker.supervise.process import RUN_MARK, WORKER_MARK


def marks_of(pid: int) -> tuple[str, Path] | None:
    """The worker and the run folder of a trainer's process; None for any other, and for one that has ended."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            told = dict(each.partition(b"=")[::2] for each in file.read().split(b"\0"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    worker, run = (told.get(mark.encode()) for mark in (WORKER_MARK, RUN_MARK))
    return (os.fsdecode(worker), Path(os.fsdecode(run))) if worker and run else None


def parent(pid: int) -> int | None:
    """None for a process that has ended, also where nobody has taken note of that yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in (b"Z", b"X") else int(parent)


def find(worker: str, runs: Path) -> dict[Path, set[int]]:
    """The processes of the worker's trainers, by their run folder, which lies below `runs`."""
    found: dict[Path, set[int]] = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        marked = marks_of(pid)
        if marked and marked[0] == worker and marked[1].is_relative_to(runs) and parent(pid) is not None:
            found.setdefault(marked[1], set()).add(pid)
    return found


class Strays:
    """What dead processes of this worker, or dead workers of its name, have left on this machine."""

    def __init__(self, worker: str, runs: Path, grace: timedelta) -> None:
        self._worker = worker
        self._runs = runs
        self._grace = grace.total_seconds()
        self._found: dict[Path, float] = {}
        """When each run was first found that nobody follows."""
        self._ending: dict[Path, set[int]] = {}
        """A process that ends gives up its environment, by which it is found, before its devices."""

    def clear(self, now: float, ask_followed: Callable[[], Collection[Path]]) -> set[Path]:
        """Tells what nobody follows to stop, and kills it when its grace is over. `now` is on the monotonic clock.
        Returns the run folders that still have processes."""
        found = find(self._worker, self._runs)
        # After the look: what was found had been begun before it, and is not taken for a stray.
        followed = ask_followed()
        left = {run: pids for run, pids in found.items() if run not in followed}
        self._found = {run: self._found.get(run, now) for run in left}
        for run, pids in left.items():
            if now - self._found[run] >= self._grace:
                _send(signal.SIGKILL, pids)
            elif self._found[run] == now:
                # A guard passes it on, and torchrun does: told twice, a rank might end before it has saved.
                _send(signal.SIGTERM, {pid for pid in pids if parent(pid) not in pids})
        before = {run: pids for run, pids in self._ending.items() if run not in followed}
        there = {run: {pid for pid in pids if parent(pid) is not None} for run, pids in before.items()}
        self._ending = {run: left.get(run, set()) | there.get(run, set()) for run in left.keys() | there.keys()}
        self._ending = {run: pids for run, pids in self._ending.items() if pids}
        return set(self._ending)


def _send(number: signal.Signals, pids: Collection[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
