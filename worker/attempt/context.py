"""What every step of an attempt works with."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from sqlalchemy.orm import Session

from contract.machine import Machine
from contract.run_dir import RunDir
from runtime import tracing
from storage.backends import Storage, make_storage
from store import artifacts
from store.jobs import jobs
from store.jobs.transitions import AttemptPart
from store.scheduling import leases
from store.session import Sessions
from worker.attempt.timing import NORMAL, Timing
from worker.settings import WorkerSettings
from worker.transaction import Patience, run_transaction

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """One attempt at a job, or this machine's part of it."""

    sessions: Sessions
    settings: WorkerSettings
    machine: Machine
    part: AttemptPart
    draining: Callable[[], bool]
    """True once this worker is to stop. Its jobs go back to the queue."""
    timing: Timing = NORMAL

    @cached_property
    def storage(self) -> Storage:
        """The storage client, made in the process that runs the attempt: it does not survive a fork."""
        return make_storage(self.settings)

    @property
    def run_dir(self) -> RunDir:
        return self._run_dir(self.part.attempt)

    @property
    def earlier_runs(self) -> list[RunDir]:
        """The run folders of the earlier attempts, oldest first."""
        return [self._run_dir(number) for number in range(1, self.part.attempt)]

    def _run_dir(self, number: int) -> RunDir:
        return RunDir(self.settings.runs / artifacts.run_path(self.part.job_id, number))

    @property
    def trace_attributes(self) -> dict[str, str | int]:
        """What each of its spans has."""
        worker, part = self.settings.worker, self.part
        return {"finetuned.job_id": part.job_id, "finetuned.attempt": part.attempt, "finetuned.worker": worker}

    def span(self, name: str) -> AbstractContextManager[None]:
        """Times a part of its start in the trace of the job's request."""
        return tracing.span(name, self.part.traceparent, self.trace_attributes)

    @cached_property
    def patience(self) -> Patience:
        return Patience(self.draining)

    def transact(self, work: Callable[[Session], T]) -> T:
        """Runs `work` in one transaction, however long the database is unavailable. Raises JobGivenUp once the
        worker is to stop."""
        return run_transaction(self.sessions, f"job {self.part.job_id}", work, self.patience)

    def free_devices(self, session: Session) -> None:
        """Returns this machine's devices to the scheduler."""
        leases.free(session, self.part.job_id, self.part.attempt, self.settings.worker)

    def machines(self, session: Session) -> set[str]:
        """The workers whose machine has, or will have, a process of the attempt."""
        return leases.machines(session, self.part.job_id, self.part.attempt)

    def make_heartbeat(self) -> Callable[[], None]:
        """A function that renews the job's lease, at most once per heartbeat however often it is called.

        It is for work that may take longer than the lease. It raises StaleAttempt.
        """
        part, lease = self.part, self.settings.lease
        last = -math.inf

        def heartbeat() -> None:
            nonlocal last
            if time.monotonic() - last >= self.timing.heartbeat:
                self.transact(lambda session: jobs.renew(session, part.job_id, part.attempt, lease))
                last = time.monotonic()

        return heartbeat
