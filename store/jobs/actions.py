"""Actions that users request of a job. Each is idempotent."""

from sqlalchemy.orm import Session

from contract.status import JobStatus, RequestedAction
from store import trackings
from store.errors import IllegalMove
from store.jobs import jobs, transitions
from store.models import Job
from store.scheduling import leases

_CANCELS = (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL)
_RETRIED = (JobStatus.FAILED, JobStatus.CANCELLED)


def cancel(session: Session, job_id: str, owner: str | None = None, *, force: bool = False) -> Job:
    """Cancels a waiting job at once, and a running one through its worker; with `force` that saves nothing. Raises
    JobNotFound, IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status is JobStatus.RUNNING:
        if job.requested_action is not RequestedAction.FORCE_CANCEL:
            job.requested_action = RequestedAction.FORCE_CANCEL if force else RequestedAction.CANCEL
    elif job.status is not JobStatus.CANCELLED:
        _stop(session, job, JobStatus.CANCELLED)
    return job


def pause(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Pauses a job; a running one saves first. Raises JobNotFound, IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status is JobStatus.RUNNING:
        if job.requested_action in _CANCELS:
            raise IllegalMove(job_id, "running, to be cancelled,", JobStatus.PAUSED)
        job.requested_action = RequestedAction.PAUSE
    elif job.status is not JobStatus.PAUSED:
        _stop(session, job, JobStatus.PAUSED)
    return job


def resume(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Queues a paused job, to resume from its last training checkpoint. One that is still saving for a pause is queued
    after that. Raises JobNotFound, IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status is JobStatus.RUNNING:
        if job.requested_action in _CANCELS:
            raise IllegalMove(job_id, "running, to be cancelled,", JobStatus.QUEUED)
        if job.requested_action is RequestedAction.PAUSE:
            job.requested_action = None
    elif job.status is JobStatus.PAUSED:
        _queue(session, job)
    elif job.status is not JobStatus.QUEUED:
        instead = " by this; retry does it" if job.status in _RETRIED else ""
        raise IllegalMove(job_id, job.status, JobStatus.QUEUED, instead)
    return job


def retry(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Queues a failed or cancelled job, to resume from its last training checkpoint. Raises JobNotFound,
    IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status in _RETRIED:
        trackings.follow_again(session, job_id)
        _queue(session, job)
    elif job.status not in (JobStatus.QUEUED, JobStatus.RUNNING) or job.requested_action in _CANCELS:
        instead = " by this; resume does it" if job.status is JobStatus.PAUSED else ""
        raise IllegalMove(job_id, job.status, JobStatus.QUEUED, instead)
    return job


def _stop(session: Session, job: Job, target: JobStatus) -> None:
    if transitions.move(session, job.id, target, only_from={JobStatus.QUEUED, JobStatus.PAUSED}) is None:
        raise IllegalMove(job.id, job.status, target)
    leases.revoke(session, job.id)


def _queue(session: Session, job: Job) -> None:
    values = {"not_before": None, "retries": 0, "failed_step": None}
    transitions.move(session, job.id, JobStatus.QUEUED, only_from={job.status}, values=values)
