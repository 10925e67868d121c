"""Runs this machine's part of an attempt that another machine, the head node, runs: it only trains.

The head node records everything: the events come from rank 0, which runs there.
"""

import logging
import os
import time

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contract.status import JobStatus, RequestedAction
from store.jobs import jobs
from store.models import Job
from store.scheduling import leases
from worker.attempt.context import Attempt
from worker.attempt.launch import launch_part
from worker.launchers.launcher import Trainer
from worker.transaction import JobGivenUp

log = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """Returns when no process of the part is left. Raises JobGivenUp."""
    try:
        launched = _wait_for_head(attempt)
        if launched is not None:
            _train(attempt, *launched)
    except JobGivenUp:
        raise
    except Exception:
        # The head node sees that this machine's leases are gone, and ends the attempt.
        log.exception("the part of job %s on this machine failed", attempt.part.job_id)
    attempt.transact(attempt.free_devices)


def _wait_for_head(attempt: Attempt) -> tuple[str, str] | None:
    """The head node's endpoint and the command that it started; None if the attempt ends before that."""
    part = attempt.part

    def read(session: Session) -> tuple[Job, bool]:
        job = jobs.get(session, part.job_id)
        is_next = job.status is JobStatus.QUEUED and job.attempt == part.attempt - 1
        is_ours = leases.follows(session, part.job_id, part.attempt, attempt.settings.worker, os.getpid())
        return job, is_next and is_ours and leases.has_head(session, part.job_id, part.attempt)

    while not attempt.draining():
        job, may_start = attempt.transact(read)
        is_running = job.status is JobStatus.RUNNING and job.attempt == part.attempt
        if is_running and job.rendezvous is not None:
            return (job.rendezvous, job.command or "") if job.rendezvous else None
        if not is_running and not may_start:
            return None
        time.sleep(attempt.timing.tick)
    return None


def _train(attempt: Attempt, endpoint: str, head_command: str) -> None:
    trainer = launch_part(attempt, endpoint, head_command)
    try:
        _follow(attempt, trainer, endpoint)
    finally:
        trainer.stop()
        trainer.wait()


def _follow(attempt: Attempt, trainer: Trainer, endpoint: str) -> None:
    """Returns when the trainer has exited.

    Of the owner's requests this machine acts on a forced cancel only; the head node acts on the others. If this
    torchrun stopped first, the head node's would wait for it.
    """
    part, cut_off = attempt.part, attempt.settings.cut_off.total_seconds()
    read_at = running_at = time.monotonic()
    stopped = given_up = False
    while trainer.poll() is None:
        now = time.monotonic()
        try:
            with attempt.sessions.begin() as session:
                job = jobs.get(session, part.job_id)
            read_at = now
            attempt.patience.succeeded()
            if (job.status, job.attempt, job.rendezvous) == (JobStatus.RUNNING, part.attempt, endpoint):
                running_at = now
            if job.requested_action is RequestedAction.FORCE_CANCEL:
                trainer.kill()
        except OperationalError as error:
            given_up = attempt.patience.failed()
            log.warning("job %s: the database is unavailable: %s", part.job_id, error)
        over_for = read_at - running_at
        if not stopped and (over_for > 0 or now - read_at > cut_off or given_up):
            trainer.stop()
            stopped = True
        if over_for > attempt.timing.exit_after_done:
            trainer.kill()
        time.sleep(attempt.timing.heartbeat)
