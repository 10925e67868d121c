"""What users ask of a job. Each may be asked again: what is so already stays so."""

from sqlalchemy.orm import Session

from contract.status import JobStatus, RequestedAction
from store.errors import IllegalMove
from store.jobs import jobs
from store.models import Job
from store.scheduling import leases

_CANCELS = (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL)
_RETRIED = (JobStatus.FAILED, JobStatus.CANCELLED)


def cancel(session: Session, job_id: str, owner: str | None = None, *, force: bool = False) -> Job:
    """Ends a job that waits; asks the worker of one that runs, and with `force` leaves it no time to save. Raises
    JobNotFound, IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status is JobStatus.RUNNING:
        if job.requested_action is not RequestedAction.FORCE_CANCEL:
            job.requested_action = RequestedAction.FORCE_CANCEL if force else RequestedAction.CANCEL
    elif job.status is not JobStatus.CANCELLED:
        _set_aside(session, job, JobStatus.CANCELLED)
    return job


def pause(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Sets a job aside; one that runs saves first. Raises JobNotFound, IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status is JobStatus.RUNNING:
        if job.requested_action in _CANCELS:
            raise IllegalMove(job_id, "running, to be cancelled,", JobStatus.PAUSED)
        job.requested_action = RequestedAction.PAUSE
    elif job.status is not JobStatus.PAUSED:
        _set_aside(session, job, JobStatus.PAUSED)
    return job


def resume(session: Session, job_id: str, owner: str | None = None) -> Job:
    """Lets a paused job go on from its last state; one that still saves for its pause goes back to the queue then.
    Raises JobNotFound, IllegalMove."""
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
    """Puts a job that has failed or was cancelled back in the queue, to go on from its last state. Raises JobNotFound,
    IllegalMove."""
    job = jobs.lock(session, job_id, owner)
    if job.status in _RETRIED:
        _queue(session, job)
    elif job.status not in (JobStatus.QUEUED, JobStatus.RUNNING) or job.requested_action in _CANCELS:
        instead = " by this; resume does it" if job.status is JobStatus.PAUSED else ""
        raise IllegalMove(job_id, job.status, JobStatus.QUEUED, instead)
    return job


def _set_aside(session: Session, job: Job, target: JobStatus) -> None:
    if jobs.move(session, job.id, target, only_from={JobStatus.QUEUED, JobStatus.PAUSED}) is None:
        raise IllegalMove(job.id, job.status, target)
    leases.take_back(session, job.id)


def _queue(session: Session, job: Job) -> None:
    values = {"not_before": None, "retries": 0, "failed_step": None}
    jobs.move(session, job.id, JobStatus.QUEUED, only_from={job.status}, values=values)
