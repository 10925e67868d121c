"""Ends an attempt in the store, once its processes are gone on all machines and its artifacts are published."""

import math
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from contract.run_dir import prune_states
from contract.status import TERMINAL, JobStatus, RequestedAction
from store import artifacts
from store.jobs import attempts, jobs
from store.jobs.attempts import AttemptEnd
from store.scheduling import workers
from worker.attempt.context import Attempt
from worker.transaction import JobGivenUp


def finish(attempt: Attempt, end: AttemptEnd) -> None:
    """Writes how the attempt ended, however long the database is unavailable. Raises StaleAttempt."""
    part, retries = attempt.part, attempt.settings.retries
    _wait_for_peers(attempt, end)
    _publish(attempt, end)
    status = attempt.transact(lambda session: attempts.finish(session, part.job_id, part.attempt, end, retries))
    if status is JobStatus.SUCCEEDED:
        prune_states([*attempt.earlier_runs, attempt.run_dir], keep=0)


def _wait_for_peers(attempt: Attempt, end: AttemptEnd) -> None:
    """Waits until no other machine has a process of the attempt."""
    part, settings = attempt.part, attempt.settings

    def are_gone(session: Session) -> bool:
        job = jobs.signal_peers_done(session, part.job_id, part.attempt, settings.lease)
        # A silent machine is not waited for, except after a cancel: its owner is promised that no process is left.
        cancelled = (
            job.requested_action in (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL)
            and end.status is not JobStatus.SUCCEEDED
        )
        alive = workers.alive_names(session, settings.unseen if cancelled else timedelta(0))
        return attempt.machines(session) & alive <= {settings.worker}

    while not attempt.transact(are_gone):
        time.sleep(attempt.timing.heartbeat)


def _publish(attempt: Attempt, end: AttemptEnd) -> None:
    """Hands the artifacts to the publishing process, frees the devices, and waits until they are published: without
    limit where the job succeeds, else for a few seconds. Raises JobGivenUp where the worker is to stop meanwhile: the
    bucket may be away for longer than its machine waits."""
    part, run_dir = attempt.part, attempt.run_dir
    log_bytes = run_dir.log.stat().st_size if run_dir.log.exists() else None

    def hand_over(session: Session) -> None:
        jobs.lock_running(session, part.job_id, part.attempt)
        log, report = Path(run_dir.log.name), end.status in TERMINAL
        artifacts.add_end(session, part.job_id, part.attempt, log, log_bytes, report=report)
        attempt.free_devices(session)

    def is_done(session: Session) -> bool:
        jobs.signal_peers_done(session, part.job_id, part.attempt, attempt.settings.lease)
        return artifacts.all_published(session, part.job_id)

    attempt.transact(hand_over)
    longest, succeeds = attempt.timing.publishing, end.status is JobStatus.SUCCEEDED
    deadline = math.inf if succeeds else time.monotonic() + longest
    while not attempt.transact(is_done) and run_dir.path.exists():
        if attempt.draining():
            deadline = min(deadline, time.monotonic() + longest)
        if time.monotonic() < deadline:
            time.sleep(attempt.timing.tick)
        elif succeeds:
            raise JobGivenUp(f"job {part.job_id}: the worker is to stop, and its artifacts are not published")
        else:
            return
