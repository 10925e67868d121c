"""Ends the Slurm jobs of attempts that nobody follows any more, as worker.supervise.orphans ends processes."""

import logging
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from worker.launchers import slurm_commands as slurm
from worker.launchers.cluster_node import STOP
from worker.launchers.slurm_commands import SlurmJob
from worker.launchers.slurm_node import STOPPED
from worker.supervise.orphans import Orphans

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 2.0
_LONGEST = 3.0
"""Seconds that a command may take: the worker sends no heartbeat meanwhile."""


def tell_to_stop(run: Path) -> None:
    """Has the Slurm job of a run folder end, or end as soon as it starts, whatever Slurm knows of it."""
    try:
        (run / STOP).touch()
    except FileNotFoundError:
        return  # not begun, or deleted
    except OSError as error:
        log.warning("%s: its Slurm job, if any, gets no sign to stop: %s", run, error)


class SlurmOrphans:
    """Wraps the search for processes: an sbatch whose worker was killed is one, and may still submit."""

    def __init__(self, processes: Orphans, worker: str, runs: Path, grace: timedelta) -> None:
        self._processes = processes
        self._worker = worker
        self._runs = runs
        self._grace = grace.total_seconds()
        self._found_at: dict[str, float] = {}
        """When each job was first found without a follower, by its id."""
        self._next_look = 0.0

    def end(self, now: float, list_followed: Callable[[], Collection[Path]]) -> set[Path] | None:
        """As Orphans.end; None where it is too early for another look. Raises ControllerUnreachable."""
        if now < self._next_look:
            return None
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        remaining = self._processes.end(now, list_followed)
        found = [job for job in slurm.list_jobs(self._worker, _LONGEST) if not job.has_ended]
        # Listed after the search, as in Orphans.
        followed = list_followed()
        orphans = [job for job in found if job.folder.is_relative_to(self._runs) and job.folder not in followed]
        # Before any signal: a follower elsewhere, of an earlier worker of this name, reads by it who has ended its job.
        for job in orphans:
            tell_to_stop(job.folder)
        self._end(orphans, now)
        return remaining | {job.folder for job in orphans}

    def _end(self, orphans: Collection[SlurmJob], now: float) -> None:
        before, self._found_at = self._found_at, {job.id: self._found_at.get(job.id, now) for job in orphans}
        running = [job for job in orphans if not job.is_pending]
        overdue = [job.id for job in running if now - self._found_at[job.id] > self._grace]
        new = [job.id for job in running if job.id not in before and not (job.folder / STOPPED).exists()]
        # Where one does not answer, the nodes end by the sign, and what is left is cancelled after the grace.
        slurm.cancel([*overdue, *(job.id for job in orphans if job.is_pending)], _LONGEST)
        slurm.send_term(new, _LONGEST)
