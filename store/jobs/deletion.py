"""Deletes jobs and their models."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureCode
from contract.status import TERMINAL, JobStatus
from store import artifacts, deletions, evaluations, exports, sweeps
from store.errors import JobInUse
from store.jobs import jobs
from store.models import DeletedJob, Job, Lease

_REMEMBERED = timedelta(days=1)


def delete_job(session: Session, job_id: str, owner: str | None = None) -> None:
    """Deletes a job that has ended, with its events, metrics, artifacts, exports and evaluations, and
    with the last job of a sweep the sweep. Raises JobNotFound, JobInUse."""
    job = jobs.lock(session, job_id, owner)
    if job.status not in TERMINAL:
        raise JobInUse(f"job {job_id} is {job.status}; cancel it, and delete it once it has ended")
    worker = session.scalar(select(Lease.worker).where(Lease.job_id == job_id).limit(1))
    if worker is not None:
        raise JobInUse(f"job {job_id} may still have processes on {worker}; delete it once its devices are free")
    _check_unneeded(session, job)
    deletions.add(session, [job_id])
    session.add(DeletedJob(id=job_id, owner=job.owner))
    session.execute(delete(Job).where(Job.id == job_id))
    if job.sweep_id is not None:
        sweeps.delete_if_empty(session, job.sweep_id)


def forget(session: Session) -> None:
    """Deletes the notes of jobs that were deleted some time ago."""
    session.execute(delete(DeletedJob).where(DeletedJob.deleted_at < func.now() - _REMEMBERED))


def delete_model(session: Session, job: Job) -> bool:
    """Deletes the model of a locked job: its adapters and the models merged from them; exports and evaluations that
    are not done fail.
    False if it has none or it was deleted before. Raises JobInUse."""
    if job.status is not JobStatus.SUCCEEDED or job.model_deleted_at is not None:
        return False
    _check_unneeded(session, job)
    job.model_deleted_at = session.scalar(select(func.now()))
    artifacts.delete(session, artifacts.list_weights(session, job.id))
    message = f"the model of job {job.id} was deleted"
    failure = Failure(code=FailureCode.RECIPE_INVALID, message=message, param="source")
    exports.fail_open(session, job.id, failure)
    evaluations.fail_open(session, job.id, failure)
    return True


def _check_unneeded(session: Session, job: Job) -> None:
    """Checks that no job starts from this one. Raises JobInUse."""
    starts = select(Job).where(Job.start_from_job == job.id, Job.status.not_in(TERMINAL))
    other = session.scalar(starts.limit(1))
    if other is not None:
        name = f"job {other.id}" if other.owner == job.owner else "a job of another owner"
        raise JobInUse(f"{name} starts from job {job.id} and has not ended; cancel it, or wait for its end")
