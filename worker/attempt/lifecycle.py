"""Runs one attempt at a job from its inputs to its end: lay out, resume, launch, follow, finish."""

import errno
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from contract.events import StartedEvent
from contract.failure import Failure, FailureCode, InputError
from contract.fault import describe_fault
from contract.machine import machines_needed
from contract.out_of_memory import smaller_batch
from contract.recipe import Batch, Recipe
from contract.status import JobStatus
from storage.errors import StorageUnavailable
from store.errors import StaleAttempt
from store.jobs import jobs
from store.jobs.attempts import AttemptEnd
from store.scheduling import workers
from worker.attempt.context import Attempt
from worker.attempt.finish import finish
from worker.attempt.launch import launch
from worker.attempt.layout import lay_out
from worker.attempt.monitor import follow
from worker.attempt.outcome import decide
from worker.attempt.resume import catch_up, find_state
from worker.attempt.watch import Watch
from worker.launchers.launcher import Ended
from worker.machine import devices
from worker.run_output import read_error, read_exit_report, read_log_tail
from worker.transaction import JobGivenUp

log = logging.getLogger(__name__)

_UNAVAILABLE = "the storage of datasets and artifacts does not answer, or refuses; the worker's log says why"

_BUGS = (ArithmeticError, AssertionError, AttributeError, DataError, LookupError, NameError, TypeError, ValueError)
"""What no disk, network or process raises."""


def run(attempt: Attempt) -> None:
    """Runs the attempt until it has ended or its lease is lost. It holds no database session meanwhile. Raises
    JobGivenUp once no process of it is left."""
    try:
        finish(attempt, _train_or_fail(attempt))
    except StaleAttempt as stale:
        log.warning("%s", stale)
        attempt.transact(attempt.free_devices)


def _train_or_fail(attempt: Attempt) -> AttemptEnd:
    """How the training ended. Raises StaleAttempt, JobGivenUp."""
    part = attempt.part
    try:
        with ExitStack() as files:
            with attempt.span("lay_out"):
                recipe = lay_out(attempt, files)
            return _train(attempt, recipe)
    except (StaleAttempt, JobGivenUp):
        raise
    except StorageUnavailable as error:
        log.warning("attempt %s at job %s cannot get its files: %s", part.attempt, part.job_id, error)
        return AttemptEnd(JobStatus.FAILED, Failure(code=FailureCode.STORAGE_UNAVAILABLE, message=_UNAVAILABLE))
    except Exception as error:
        log.exception("attempt %s at job %s failed", part.attempt, part.job_id)
        return AttemptEnd(JobStatus.FAILED, _failure(error), log_tail=read_log_tail(attempt.run_dir.log))


def _failure(error: Exception) -> Failure:
    if isinstance(error, InputError):
        return error.failure
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Failure(code=FailureCode.DISK_FULL, message=f"the server's disk is full: {error}")
    message = f"the worker failed, and its log says more: {type(error).__name__}: {error}"
    fault = describe_fault(error) if isinstance(error, _BUGS) else None
    return Failure(code=FailureCode.WORKER_FAILED, message=message, fault=fault)


def _train(attempt: Attempt, recipe: Recipe) -> AttemptEnd:
    """Runs a trainer to its end. Raises StaleAttempt, and then the trainer has ended too."""
    state = find_state(attempt)
    if catch_up(attempt, state):
        return AttemptEnd(JobStatus.SUCCEEDED)
    with attempt.span("launch"):
        trainer = launch(attempt, recipe, state)
    try:
        watch, memory_before = follow(attempt, machines_needed(recipe), trainer)
    finally:
        trainer.stop()
        ended = trainer.wait()
    memory_after = devices.memory_used(attempt.machine, attempt.part.devices)
    exit_report = _exit_report(attempt.run_dir.exit_report, memory_before, memory_after)
    return _end(attempt, recipe, watch, ended, exit_report)


def _end(
    attempt: Attempt, recipe: Recipe, watch: Watch, ended: Ended, exit_report: dict[str, Any] | None
) -> AttemptEnd:
    error, log_tail = ended.failure or read_error(attempt.run_dir), read_log_tail(attempt.run_dir.log)
    if error is not None and error.code is FailureCode.DEVICES_UNAVAILABLE and machines_needed(recipe) == 1:
        _give_no_gpu(attempt, error)
    outcome = decide(ended.exit_code, watch.done, error, watch.requested, watch.excused or ended.excused, log_tail)
    status, failure = outcome.status, outcome.failure
    if ended.message is not None and status is not JobStatus.SUCCEEDED:
        _tell(attempt, ended.message)
    if watch.lost_peer and status is JobStatus.QUEUED:
        # The trainer has saved. But the attempt counts as a failure: the other machine may lose its part each time.
        message = "another machine lost its part of the attempt; the worker's log there says more"
        status, failure = JobStatus.FAILED, Failure(code=FailureCode.WORKER_LOST, message=message)
    smaller = _smaller(recipe, failure, watch.started)
    return AttemptEnd(status, failure, smaller=smaller, log_tail=log_tail, exit_report=exit_report)


def _tell(attempt: Attempt, message: str) -> None:
    def tell(session: Session) -> None:
        job = jobs.get(session, attempt.part.job_id)
        jobs.record_event(session, job, "log", {"level": "info", "message": message})

    attempt.transact(tell)


def _give_no_gpu(attempt: Attempt, error: Failure) -> None:
    """Marks this machine's GPUs before the attempt's are freed, so that the next job does not fail on them too."""
    if attempt.machine.gpus:
        log.error("no job gets a GPU of this machine until the worker is restarted: %s", error.message)
        reason = f"a trainer could not use it, so no job gets it until the worker is restarted: {error.message}"
        attempt.transact(lambda session: workers.mark_unusable(session, attempt.settings.worker, reason))


def _smaller(recipe: Recipe, failure: Failure | None, started: StartedEvent | None) -> Batch | None:
    if failure is None or failure.code is not FailureCode.OUT_OF_MEMORY or started is None:
        return None
    return smaller_batch(recipe.batch, started)


def _exit_report(path: Path, memory_before: dict[int, int], memory_after: dict[int, int]) -> dict[str, Any] | None:
    exit_report = read_exit_report(path)
    if exit_report is None:
        return None
    memory = {"memory_before": memory_before, "memory_after": memory_after}
    return exit_report.model_copy(update=memory).model_dump(mode="json")
