"""How attempts end: as they should, to be tried again, or for good."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode
from contract.recipe import Batch
from contract.status import JobStatus, RequestedAction
from store import files
from store.jobs import jobs
from store.models import Event, Job, Lease, Metric, Worker
from store.scheduling import leases
from store.scheduling.workers import SILENCE

_SETS_ASIDE = {
    RequestedAction.CANCEL: JobStatus.CANCELLED,
    RequestedAction.FORCE_CANCEL: JobStatus.CANCELLED,
    RequestedAction.PAUSE: JobStatus.PAUSED,
}


@dataclass(frozen=True)
class Retries:
    """Of what the infrastructure has spoilt."""

    most: int
    """In a row, without the job coming further than before; with one more it fails."""
    first_wait: timedelta
    """Before the first one; twice as long before each next one."""
    longest_wait: timedelta


@dataclass(frozen=True)
class Left:
    """What an attempt has left in its run folder."""

    log_tail: str = ""
    exit_report: dict[str, Any] | None = None


@dataclass(frozen=True)
class End:
    status: JobStatus
    failure: Failure | None = None
    smaller: Batch | None = None
    """With which it may fit into the device's memory, where that was what failed."""
    log_tail: str = ""
    exit_report: dict[str, Any] | None = None


def finish(session: Session, job_id: str, attempt: int, end: End, retries: Retries) -> JobStatus:
    """Ends an attempt, none of whose processes is left, and frees the devices of its worker. Raises StaleAttempt."""
    job = jobs.still_running(session, job_id, attempt)
    leases.free(session, job_id, attempt, job.worker or "")
    return _end(session, job, end, retries)


def _end(session: Session, job: Job, end: End, retries: Retries) -> JobStatus:
    status, failure = end.status, end.failure
    values: dict[str, Any] = {"log_tail": end.log_tail, "exit_report": end.exit_report}
    spoilt = failure is not None and failure.code.retryable
    if end.smaller is not None:
        values["batch"] = end.smaller.model_dump(mode="json")
    if status is JobStatus.PAUSED:
        status = JobStatus.QUEUED  # unless that is still requested: it may be resumed or cancelled by now
    if job.requested_action in _SETS_ASIDE and (status is JobStatus.QUEUED or spoilt or end.smaller is not None):
        status = _SETS_ASIDE[job.requested_action]  # asked for while the attempt was ending for another reason
    elif status is JobStatus.FAILED and failure is not None:
        if end.smaller is not None:
            status = JobStatus.QUEUED
            told = end.smaller.model_dump(include={"micro_batch_size", "effective_batch_size"})
            jobs.tell(session, job, "retry", _why(failure) | told)
        elif failure.code is FailureCode.STORAGE_UNAVAILABLE:
            status, waits = JobStatus.QUEUED, _until_storage_is_there(session, job, failure, retries)
            values |= waits
        elif _fails_alike(session, job, failure):
            message = f"{failure.message}. It failed alike in an earlier attempt, and would again"
            failure = failure.model_copy(update={"code": FailureCode.INTERNAL_ERROR, "message": message})
        elif spoilt:
            status, failure, counted = _after_failure(session, job, failure, retries)
            values |= counted
    if status is JobStatus.SUCCEEDED:
        values["results_bytes"] = len(files.results(session, job.id))
    if status is JobStatus.FAILED and failure is not None:
        values["failure"] = failure.model_dump(mode="json", exclude={"fault"})
    jobs.move(session, job.id, status, attempt=job.attempt, only_from={JobStatus.RUNNING}, values=values)
    leases.take_back(session, job.id)
    return status


def _after_failure(
    session: Session, job: Job, failure: Failure, retries: Retries
) -> tuple[JobStatus, Failure, dict[str, Any]]:
    """Back to the queue for a while, or to an end. A failure further on than the last one is the first one there."""
    step = session.scalar(select(func.max(Metric.step)).where(Metric.job_id == job.id)) or 0
    count = 1 if job.failed_step is None or step > job.failed_step else job.retries + 1
    # An attempt may go on from before the furthest failure, and fail there: that is no new place.
    counted = {"retries": count, "failed_step": max(step, job.failed_step or 0)}
    if count > retries.most:
        message = f"{failure.message}. It was tried {count} times, the last {retries.most} without coming further"
        return JobStatus.FAILED, failure.model_copy(update={"message": message}), counted
    wait = min(retries.first_wait * 2 ** (count - 1), retries.longest_wait)
    if failure.code is FailureCode.WORKER_LOST and count == 1:
        wait = timedelta(0)  # it has waited for its lease to pass, and what was wrong is gone with the worker
    told = {"retries": count, "max_retries": retries.most, "wait_seconds": wait.total_seconds()}
    jobs.tell(session, job, "retry", _why(failure) | told)
    return JobStatus.QUEUED, failure, counted | {"not_before": func.now() + wait}


def _fails_alike(session: Session, job: Job, failure: Failure) -> bool:
    """An attempt before failed by the same exception, at the same place and step: no machine and no network did it."""
    if failure.fault is None or not failure.code.retryable:
        return False
    fault = failure.fault.model_dump(mode="json")
    before = select(Event.data).where(Event.job_id == job.id, Event.type == "retry")
    return any(data.get("fault") == fault for data in session.scalars(before))


def _until_storage_is_there(session: Session, job: Job, failure: Failure, retries: Retries) -> dict[str, Any]:
    """Back to the queue for a while, however often: nothing was trained, so nothing is spoilt that could be counted."""
    # The attempt before ended so too, where nothing is told since then but that it was queued and begun.
    lately = (Event.job_id == job.id, Event.seq >= job.event_count - 2, Event.type == "retry")
    last = session.scalar(select(Event.data).where(*lately))
    wait = retries.first_wait
    if last is not None and last["code"] == failure.code:
        wait = timedelta(seconds=last["wait_seconds"]) * 2
    wait = min(wait, retries.longest_wait)
    jobs.tell(session, job, "retry", _why(failure) | {"wait_seconds": wait.total_seconds()})
    return {"not_before": func.now() + wait}


def _why(failure: Failure) -> dict[str, Any]:
    why = {"code": failure.code, "message": failure.message}
    return why if failure.fault is None else why | {"fault": failure.fault.model_dump(mode="json")}


def lost(session: Session, job_id: str, attempt: int, retries: Retries, left: Left = Left()) -> JobStatus | None:
    """An attempt is over whose worker, or the process of it that followed the trainer, has died: no process is left,
    and nobody to tell of its end. None where it has ended otherwise."""
    job = jobs.lock(session, job_id)
    if job.status is not JobStatus.RUNNING or job.attempt != attempt:
        return None
    message = f"worker {job.worker} was lost while it ran attempt {attempt}; its log says more"
    failure = Failure(code=FailureCode.WORKER_LOST, message=message)
    return _end(
        session, job, End(JobStatus.FAILED, failure, log_tail=left.log_tail, exit_report=left.exit_report), retries
    )


def lost_with_machine(
    session: Session, unseen: timedelta, retries: Retries, left_of: Callable[[str, int], Left] = lambda *_: Left()
) -> list[tuple[Job, JobStatus]]:
    """Ends the attempts whose lease has passed and whose worker is not heard of, or has forgotten them: it came back
    with fewer devices. The devices stay leased until a worker is there again and has seen that no process is left.

    What is to be cancelled waits for `unseen` besides, in which the processes that nobody can see end by themselves.
    `left_of` reads what an attempt has left by then.
    """
    silent = ~select(Worker.name).where(Worker.name == Job.worker, Worker.seen_at >= func.now() - SILENCE).exists()
    forgotten = (
        ~select(Lease.job_id).where(Lease.job_id == Job.id, Lease.attempt == Job.attempt, Lease.rank == 0).exists()
    )
    expired = select(Job).where(Job.status == JobStatus.RUNNING, Job.lease_expires_at < func.now(), silent | forgotten)
    gone = (
        Job.requested_action.is_(None)
        | Job.requested_action.not_in([RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL])
        | (Job.lease_expires_at < func.now() - unseen)
    )
    found = session.scalars(expired.where(gone).with_for_update(skip_locked=True)).all()
    ended = [(job, lost(session, job.id, job.attempt, retries, left_of(job.id, job.attempt))) for job in found]
    return [(job, status) for job, status in ended if status is not None]
