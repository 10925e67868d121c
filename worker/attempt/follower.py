"""A machine's part in an attempt that another machine runs: it starts its ranks where the head says, and ends them with
the attempt. It tells nobody of them; rank 0 of all tells the run folder."""

import logging
import os
import shlex
import time
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from contract.recipe import Recipe
from contract.status import JobStatus, RequestedAction
from store.jobs import jobs
from store.models import Job
from store.scheduling import leases
from worker.attempt import network
from worker.attempt.command import trainer_command
from worker.attempt.lifecycle import HEARTBEAT, LAST_WORD, TICK, Attempt, rendezvous
from worker.machine import devices
from worker.supervise import process

log = logging.getLogger(__name__)


def run(attempt: Attempt) -> None:
    """Until no process of the part is left."""
    try:
        meeting = _meeting(attempt)
        if meeting is not None:
            _train(attempt, *meeting)
    except Exception:
        # The head misses its leases, and ends the attempt.
        log.exception("the part of job %s on this machine failed", attempt.part.job_id)
    part, worker = attempt.part, attempt.settings.worker
    attempt.persist(lambda session: leases.free(session, part.job_id, part.attempt, worker))


def _meeting(attempt: Attempt) -> tuple[str, str] | None:
    """Where the head waits for the others, and the command that it was started with; None where the attempt is over
    before that."""
    part = attempt.part

    def look(session: Session) -> tuple[Job, bool]:
        job = jobs.get(session, part.job_id)
        begins = job.status is JobStatus.QUEUED and job.attempt == part.attempt - 1
        mine = leases.follows(session, part.job_id, part.attempt, attempt.settings.worker, os.getpid())
        return job, begins and mine and leases.has_head(session, part.job_id, part.attempt)

    while not attempt.draining():
        job, head_is_to_come = attempt.persist(look)
        runs = job.status is JobStatus.RUNNING and job.attempt == part.attempt
        if runs and job.rendezvous is not None:
            return (job.rendezvous, job.command) if job.rendezvous else None
        if not runs and not head_is_to_come:
            return None
        time.sleep(TICK)
    return None


def _train(attempt: Attempt, endpoint: str, heads_command: str) -> None:
    part, settings, run_dir = attempt.part, attempt.settings, attempt.run_dir
    recipe = Recipe.model_validate_json(run_dir.recipe.read_bytes())
    command = trainer_command(
        settings, recipe, run_dir.path, _state(heads_command), rendezvous(settings, part, recipe, endpoint)
    )
    environment = process.marks(settings.worker, run_dir.path) | devices.environment(attempt.machine, part.devices)
    environment |= network.environment(settings.address, os.environ)
    output = run_dir.path / f"trainer-{part.rank}.log"
    exit_report = run_dir.path / f"exit_report-{part.rank}.json"
    trainer = process.start(command, run_dir.path, output, settings.grace, environment, exit_report)
    try:
        _follow(attempt, trainer, endpoint)
    finally:
        trainer.stop()
        trainer.wait()


def _state(heads_command: str) -> Path | None:
    """That the head goes on from: all ranks take the same."""
    words = shlex.split(heads_command)
    return Path(words[words.index("--resume") + 1]) if "--resume" in words else None


def _follow(attempt: Attempt, trainer: process.Trainer, endpoint: str) -> None:
    """Until the trainer has ended. What its owner asks, the head passes on: a torchrun that is told to stop before the
    head's leaves that one waiting."""
    part, settings = attempt.part, attempt.settings
    heard = on = time.monotonic()
    stopped = False
    while trainer.poll() is None:
        now = time.monotonic()
        try:
            with attempt.sessions.begin() as session:
                job = jobs.get(session, part.job_id)
            heard = now
            if (job.status, job.attempt, job.rendezvous) == (JobStatus.RUNNING, part.attempt, endpoint):
                on = now
            if job.requested_action is RequestedAction.FORCE_CANCEL:
                trainer.kill()
        except OperationalError as error:
            log.warning("job %s: the database is away: %s", part.job_id, error)
        over, cut_off = heard - on, now - heard
        if not stopped and (over > 0 or cut_off > settings.cut_off.total_seconds()):
            trainer.stop()
            stopped = True
        if over > LAST_WORD:
            trainer.kill()
        time.sleep(HEARTBEAT)
