"""Ends attempts: with success, with a retry, or for good."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode
from contract.recipe import Batch
from contract.status import JobStatus, RequestedAction
from store.jobs import jobs, transitions
from store.models import Event, Job, Lease, StepMetric
from store.scheduling import leases, workers

_SETS_ASIDE = {
    RequestedAction.CANCEL: JobStatus.CANCELLED,
    RequestedAction.FORCE_CANCEL: JobStatus.CANCELLED,
    RequestedAction.PAUSE: JobStatus.PAUSED,
}


@dataclass(frozen=True)
class Retries:
    """Policy for retries after failures of the infrastructure."""

    most: int
    """Most retries in a row without progress."""
    first_wait: timedelta
    """Wait before the first retry; it doubles each time."""
    longest_wait: timedelta


@dataclass(frozen=True)
class RunOutput:
    """What an attempt has left in its run folder."""

    log_tail: str = ""
    exit_report: dict[str, Any] | None = None


@dataclass(frozen=True)
class AttemptEnd:
    status: JobStatus
    failure: Failure | None = None
    smaller: Batch | None = None
    """Batch that may fit into the device's memory, where the recipe's did not."""
    log_tail: str = ""
    exit_report: dict[str, Any] | None = None


def finish(session: Session, job_id: str, attempt: int, end: AttemptEnd, retries: Retries) -> JobStatus:
    """Ends an attempt, none of whose processes is left, and frees the devices of its worker. Raises StaleAttempt."""
    job = jobs.lock_running(session, job_id, attempt)
    leases.free(session, job_id, attempt, job.worker or "")
    return _end(session, job, end, retries)


def _end(session: Session, job: Job, end: AttemptEnd, retries: Retries) -> JobStatus:
    status, failure = end.status, end.failure
    values: dict[str, Any] = {"log_tail": end.log_tail, "exit_report": end.exit_report}
    retryable = failure is not None and failure.code.retryable
    if end.smaller is not None:
        values["batch"] = end.smaller.model_dump(mode="json")
    if status is JobStatus.PAUSED:
        status = (
            JobStatus.QUEUED
        )  # unless a pause is still requested: the job may have been resumed or cancelled meanwhile
    if job.requested_action in _SETS_ASIDE and (status is JobStatus.QUEUED or retryable or end.smaller is not None):
        status = _SETS_ASIDE[job.requested_action]  # requested while the attempt was ending for another reason
    elif status is JobStatus.FAILED and failure is not None:
        if end.smaller is not None:
            status = JobStatus.QUEUED
            sizes = end.smaller.model_dump(include={"micro_batch_size", "effective_batch_size"})
            jobs.record_event(session, job, "retry", _event_data(failure) | sizes)
        elif failure.code is FailureCode.STORAGE_UNAVAILABLE:
            status, waits = JobStatus.QUEUED, _wait_for_storage(session, job, failure, retries)
            values |= waits
        elif _fails_alike(session, job, failure):
            message = f"{failure.message}. It failed alike in an earlier attempt, and would again"
            failure = failure.model_copy(update={"code": FailureCode.INTERNAL_ERROR, "message": message})
        elif retryable:
            status, failure, counted = _after_failure(session, job, failure, retries)
            values |= counted
    if status is JobStatus.FAILED and failure is not None:
        values["failure"] = failure.model_dump(mode="json", exclude={"fault"})
    transitions.move(session, job.id, status, attempt=job.attempt, only_from={JobStatus.RUNNING}, values=values)
    leases.revoke(session, job.id)
    return status


def _after_failure(
    session: Session, job: Job, failure: Failure, retries: Retries
) -> tuple[JobStatus, Failure, dict[str, Any]]:
    """Queues the job again after a wait, or fails it. A failure after progress counts as the first."""
    step = session.scalar(select(func.max(StepMetric.step)).where(StepMetric.job_id == job.id)) or 0
    count = 1 if job.failed_step is None or step > job.failed_step else job.retries + 1
    # An attempt may resume before the furthest failure and fail there, which is no progress.
    counted = {"retries": count, "failed_step": max(step, job.failed_step or 0)}
    if count > retries.most:
        message = f"{failure.message}. It was tried {count} times, the last {retries.most} without coming further"
        return JobStatus.FAILED, failure.model_copy(update={"message": message}), counted
    wait = min(retries.first_wait * 2 ** (count - 1), retries.longest_wait)
    if failure.code is FailureCode.WORKER_LOST and count == 1:
        wait = timedelta(0)  # it has waited for the lease to expire, and the cause went with the worker
    counts = {"retries": count, "max_retries": retries.most, "wait_seconds": wait.total_seconds()}
    jobs.record_event(session, job, "retry", _event_data(failure) | counts)
    return JobStatus.QUEUED, failure, counted | {"not_before": func.now() + wait}


def _fails_alike(session: Session, job: Job, failure: Failure) -> bool:
    """Whether an earlier attempt failed with the same exception at the same place and step: then it is a bug."""
    if failure.fault is None or not failure.code.retryable:
        return False
    fault = failure.fault.model_dump(mode="json")
    before = select(Event.data).where(Event.job_id == job.id, Event.type == "retry")
    return any(data.get("fault") == fault for data in session.scalars(before))


def _wait_for_storage(session: Session, job: Job, failure: Failure, retries: Retries) -> dict[str, Any]:
    """Queues the job again after a wait, without limit: nothing was trained, so no retry is counted."""
    # The last attempt ended alike if only "queued" and "running" were recorded since.
    lately = (Event.job_id == job.id, Event.seq >= job.event_count - 2, Event.type == "retry")
    last = session.scalar(select(Event.data).where(*lately))
    wait = retries.first_wait
    if last is not None and last["code"] == failure.code:
        wait = timedelta(seconds=last["wait_seconds"]) * 2
    wait = min(wait, retries.longest_wait)
    jobs.record_event(session, job, "retry", _event_data(failure) | {"wait_seconds": wait.total_seconds()})
    return {"not_before": func.now() + wait}


def _event_data(failure: Failure) -> dict[str, Any]:
    data = {"code": failure.code, "message": failure.message}
    return data if failure.fault is None else data | {"fault": failure.fault.model_dump(mode="json")}


def fail_lost(
    session: Session, job_id: str, attempt: int, retries: Retries, left: RunOutput = RunOutput()
) -> JobStatus | None:
    """Ends an attempt whose worker, or the process that followed the trainer, has died with all processes. None where
    the attempt has ended otherwise."""
    job = jobs.lock(session, job_id)
    if job.status is not JobStatus.RUNNING or job.attempt != attempt:
        return None
    message = f"worker {job.worker} was lost while it ran attempt {attempt}; its log says more"
    failure = Failure(code=FailureCode.WORKER_LOST, message=message)
    return _end(
        session,
        job,
        AttemptEnd(JobStatus.FAILED, failure, log_tail=left.log_tail, exit_report=left.exit_report),
        retries,
    )


def fail_expired(
    session: Session,
    unseen: timedelta,
    retries: Retries,
    left_of: Callable[[str, int], RunOutput] = lambda *_: RunOutput(),
) -> list[tuple[Job, JobStatus]]:
    """Ends the attempts whose lease has expired and whose worker is silent, or came back with fewer devices. The
    devices stay leased until a worker has seen that no process is left on them.

    A job that is to be cancelled waits for `unseen` more, in which processes that nobody can see end by themselves.
    `left_of` reads what an attempt has left by then.
    """
    silent = ~workers.alive(Job.worker)
    without_devices = (
        ~select(Lease.job_id).where(Lease.job_id == Job.id, Lease.attempt == Job.attempt, Lease.rank == 0).exists()
    )
    expired = select(Job).where(
        Job.status == JobStatus.RUNNING, Job.lease_expires_at < func.now(), silent | without_devices
    )
    gone = (
        Job.requested_action.is_(None)
        | Job.requested_action.not_in([RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL])
        | (Job.lease_expires_at < func.now() - unseen)
    )
    found = session.scalars(expired.where(gone).with_for_update(skip_locked=True)).all()
    ended = [(job, fail_lost(session, job.id, job.attempt, retries, left_of(job.id, job.attempt))) for job in found]
    return [(job, status) for job, status in ended if status is not None]
