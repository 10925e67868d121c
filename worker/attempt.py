"""One attempt at a job: lays out its run folder, trains in it, tells the store, and writes how it ended."""

import errno
import logging
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from contract.events import Done, Event
from contract.failure import Failure, FailureReason, InputError
from contract.locate import locate_dataset, locate_model
from contract.machine import Machine, check_machines
from contract.recipe import Recipe
from contract.run_dir import RunDir, last_state
from contract.status import JobStatus, Wish
from store import artifacts, jobs, progress
from store.earlier_adapter import locate_earlier_adapter
from store.errors import StaleAttempt
from store.session import Sessions
from worker import process
from worker.command import trainer_command
from worker.outcome import Outcome, decide
from worker.settings import WorkerSettings
from worker.tail import Tail

log = logging.getLogger(__name__)

TICK = 0.2  # seconds between two looks at the events
HEARTBEAT = 1.0  # seconds between two renewals of the lease when there is nothing to tell
LOG_TAIL = 8_000  # bytes kept in the row


Draining = Callable[[], bool]
"""True once this worker is to end; its jobs go back to the queue."""


@dataclass(frozen=True)
class Attempt:
    job_id: str
    number: int
    recipe: dict[str, Any]
    """As the row has it; a newer schema may refuse what an older one took."""


def run(sessions: Sessions, settings: WorkerSettings, machine: Machine, attempt: Attempt, draining: Draining) -> None:
    """Trains until the end of the job or of the lease. No database session is held meanwhile."""
    run_dir = RunDir(settings.runs / artifacts.run_path(attempt.job_id, attempt.number))
    try:
        try:
            recipe = Recipe.model_validate(attempt.recipe)
            check_machines(recipe, [machine])
            _lay_out(sessions, settings, run_dir, recipe)
            command = trainer_command(settings, recipe, run_dir.path, _resume(settings, attempt))
            outcome = _train(sessions, settings, attempt, run_dir, command, draining)
        except StaleAttempt:
            raise
        except Exception as error:
            log.exception("attempt %s at job %s failed", attempt.number, attempt.job_id)
            outcome = Outcome(JobStatus.FAILED, _failure(error))
        _finish(sessions, attempt, run_dir, outcome)
    except StaleAttempt as stale:
        log.warning("%s", stale)


def _failure(error: Exception) -> Failure:
    if isinstance(error, InputError):
        return error.failure
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(reason=FailureReason.DISK_FULL, message=f"the server's disk is full: {error}")
    message = f"the worker failed, and its log says more: {type(error).__name__}: {error}"
    return Failure(reason=FailureReason.WORKER_FAILED, message=message)


def _lay_out(sessions: Sessions, settings: WorkerSettings, run_dir: RunDir, recipe: Recipe) -> None:
    """Writes the recipe with its model, dataset and earlier adapter as this machine has them. Raises InputError when
    they have gone."""
    model = locate_model(recipe.model, settings.models, settings.allowed_paths)
    dataset = locate_dataset(recipe.dataset.path, settings.dataset_folders)
    adapter = recipe.adapter
    if adapter.start_from is not None:
        earlier = locate_earlier_adapter(sessions, settings.runs, adapter.start_from)
        adapter = adapter.model_copy(update={"start_from": str(earlier)})
    resolved = recipe.model_copy(
        update={
            "model": str(model) if model else recipe.model,
            "dataset": recipe.dataset.model_copy(update={"path": str(dataset)}),
            "adapter": adapter,
        }
    )
    run_dir.path.mkdir(parents=True)
    run_dir.recipe.write_text(resolved.model_dump_json(indent=2))


def _train(
    sessions: Sessions,
    settings: WorkerSettings,
    attempt: Attempt,
    run_dir: RunDir,
    command: list[str],
    draining: Draining,
) -> Outcome:
    """Follows a trainer to its end. Raises StaleAttempt, and then the trainer has ended too."""
    # After the choice of the state: all the steps that it holds had been told before it was saved.
    _catch_up(sessions, settings, attempt)
    with sessions.begin() as session:
        jobs.launch(session, attempt.job_id, attempt.number, shlex.join(command), settings.lease)
    trainer = process.start(command, run_dir.path, run_dir.log, settings.grace)
    try:
        done, wish = _follow(sessions, settings.lease, attempt, trainer, Tail(run_dir.events), draining)
    finally:
        trainer.terminate()
        exit_code = trainer.wait()
    return decide(exit_code, done, _error(run_dir), wish, draining(), _log_tail(run_dir))


def _resume(settings: WorkerSettings, attempt: Attempt) -> Path | None:
    """Where to go on: the furthest state of the attempts before."""
    before = (RunDir(settings.runs / artifacts.run_path(attempt.job_id, n)) for n in range(1, attempt.number))
    return last_state(before)


def _catch_up(sessions: Sessions, settings: WorkerSettings, attempt: Attempt) -> None:
    """A trainer goes on for a moment after its worker is lost: what it told then, and saved, is told now."""
    before = attempt.number - 1
    tail = Tail(RunDir(settings.runs / artifacts.run_path(attempt.job_id, before)).events)
    while batch := tail.read():
        with sessions.begin() as session:
            progress.catch_up(session, attempt.job_id, attempt.number, before, batch)


def _follow(
    sessions: Sessions,
    lease: timedelta,
    attempt: Attempt,
    trainer: subprocess.Popen[bytes],
    tail: Tail,
    draining: Draining,
) -> tuple[Done | None, Wish | None]:
    """Tells the store of the trainer, and the trainer of its owner's wish, until it has ended and all is told."""
    untold: list[Event] = []
    done: Done | None = None
    wish: Wish | None = None
    asked_to_stop = False
    next_beat = time.monotonic()
    while True:
        ended = trainer.poll() is not None
        new = tail.read()
        untold += new
        done = next((event for event in new if isinstance(event, Done)), done)
        if untold or ended or time.monotonic() >= next_beat:
            try:
                with sessions.begin() as session:
                    wish = progress.record(session, attempt.job_id, attempt.number, untold, lease)
                untold.clear()
                next_beat = time.monotonic() + HEARTBEAT
            except OperationalError as error:
                log.warning("job %s: the database is away, its events wait: %s", attempt.job_id, error)
        if ended and not new and not untold:
            return done, wish
        if not asked_to_stop and (wish is Wish.CANCEL or draining()):
            trainer.terminate()
            asked_to_stop = True
        time.sleep(TICK)


def _finish(sessions: Sessions, attempt: Attempt, run_dir: RunDir, outcome: Outcome) -> None:
    """Writes how it ended, however long the database is away. Raises StaleAttempt."""
    while True:
        try:
            with sessions.begin() as session:
                if run_dir.log.exists():
                    size = run_dir.log.stat().st_size
                    artifacts.add_log(session, attempt.job_id, attempt.number, Path(run_dir.log.name), size)
                jobs.finish(
                    session, attempt.job_id, attempt.number, outcome.status, outcome.failure, _log_tail(run_dir)
                )
            return
        except OperationalError as error:
            log.warning("job %s: the database is away, its end waits: %s", attempt.job_id, error)
            time.sleep(HEARTBEAT)


def _error(run_dir: RunDir) -> Failure | None:
    """What the trainer wrote of its failure; None where it wrote nothing, or was killed while it did."""
    try:
        return Failure.model_validate_json(run_dir.error.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        log.warning("%s is torn: %s", run_dir.error, error)
        return None


def _log_tail(run_dir: RunDir) -> str:
    try:
        with run_dir.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
            # PostgreSQL's text holds no NUL.
            return file.read().decode(errors="replace").replace("\0", "\ufffd")
    except FileNotFoundError:
        return ""
