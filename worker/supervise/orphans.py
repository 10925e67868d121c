"""Finds a trainer's processes by the marks in their environment, and ends those that nobody follows any more."""

import signal
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from runtime import processes
from worker.supervise.process import RUN_MARK, WORKER_MARK


class Marks(NamedTuple):
    """What a trainer's process carries in its environment."""

    worker: str
    run: Path


def marks_of(pid: int) -> Marks | None:
    """None for a process that is no trainer's, and for one that has ended."""
    return _marks(processes.environment_of(pid))


def _marks(environment: Mapping[str, str]) -> Marks | None:
    worker, run = environment.get(WORKER_MARK), environment.get(RUN_MARK)
    return Marks(worker, Path(run)) if worker and run else None


def find(worker: str, runs: Path) -> dict[Path, set[int]]:
    """The processes of the worker's trainers, by their run folder, which is below `runs`."""
    found: dict[Path, set[int]] = {}
    for pid, environment in processes.environments():
        marks = _marks(environment)
        if marks and marks.worker == worker and marks.run.is_relative_to(runs) and processes.is_alive(pid):
            found.setdefault(marks.run, set()).add(pid)
    return found


class Orphans:
    """What dead processes of this worker, or dead workers of its name, have left on this machine."""

    def __init__(self, worker: str, runs: Path, grace: timedelta) -> None:
        self._worker = worker
        self._runs = runs
        self._grace = grace.total_seconds()
        self._found_at: dict[Path, float] = {}
        """When each run was first found without a follower."""
        self._ending: dict[Path, set[int]] = {}
        """A process that ends gives up its environment, by which it is found, before its devices."""

    def end(self, now: float, list_followed: Callable[[], Collection[Path]]) -> set[Path]:
        """Stops the processes that nobody follows, and kills them when their grace is over.

        `now` is on the monotonic clock. Returns the run folders that still have processes.
        """
        found = find(self._worker, self._runs)
        # Listed after the search: whatever was found had begun before it, so no new attempt is taken for an orphan.
        followed = list_followed()
        orphans = {run: pids for run, pids in found.items() if run not in followed}
        self._found_at = {run: self._found_at.get(run, now) for run in orphans}
        for run, pids in orphans.items():
            self._signal(run, pids, now)
        self._remember(orphans, followed)
        return set(self._ending)

    def _signal(self, run: Path, pids: set[int], now: float) -> None:
        if now - self._found_at[run] >= self._grace:
            processes.send(signal.SIGKILL, pids)
        elif self._found_at[run] == now:
            # A guard passes it on, and torchrun does: a rank that gets it twice might end before it has saved.
            processes.send(signal.SIGTERM, {pid for pid in pids if processes.parent_of(pid) not in pids})

    def _remember(self, orphans: Mapping[Path, set[int]], followed: Collection[Path]) -> None:
        """Keeps the processes that are still alive, found now or before."""
        ending: dict[Path, set[int]] = {}
        for run in orphans.keys() | self._ending.keys() - set(followed):
            before = {pid for pid in self._ending.get(run, set()) if processes.is_alive(pid)}
            ending[run] = orphans.get(run, set()) | before
        self._ending = {run: pids for run, pids in ending.items() if pids}
