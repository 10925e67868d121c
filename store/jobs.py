"""The queries on jobs. `move` is the one writer of a status."""

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from contract.failure import Failure, FailureReason
from contract.recipe import Recipe
from contract.status import TERMINAL, JobStatus, Wish, allowed_from
from store.errors import IllegalMove, JobNotFound, StaleAttempt
from store.models import Event, Job


def create(session: Session, recipe: Recipe, warnings: Sequence[str] = ()) -> Job:
    """A new job, queued; its first events tell of it and of what is unwise in its recipe."""
    job = Job(
        id=f"job_{secrets.token_hex(12)}",
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        status=JobStatus.QUEUED,
        attempt=0,
        losses=0,
        event_count=1 + len(warnings),
    )
    session.add(job)
    session.flush()
    session.add(_status_event(job, seq=1))
    for seq, warning in enumerate(warnings, start=2):
        data = {"level": "warning", "message": warning}
        session.add(Event(job_id=job.id, seq=seq, time=time.time(), type="log", data=data))
    return job


def get(session: Session, job_id: str) -> Job:
    """Raises JobNotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise JobNotFound(job_id)
    return job


def newest(session: Session, limit: int, after: str | None) -> list[Job]:
    """Newest first; `after` is the last id of the page before. Raises JobNotFound for an unknown `after`."""
    query = select(Job).order_by(Job.created_at.desc(), Job.id.desc()).limit(limit)
    if after is not None:
        last = get(session, after)
        query = query.where(tuple_(Job.created_at, Job.id) < (last.created_at, last.id))
    return list(session.scalars(query))


def move(
    session: Session,
    job_id: str,
    target: JobStatus,
    *,
    attempt: int | None = None,
    only_from: Collection[JobStatus] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Job | None:
    """Writes a status, and an event that tells of it; None where another won, and nothing is written then.

    The guard: the job is in a state from which the table allows the move, and in one of `only_from`, and at `attempt`,
    where these are given.
    """
    sources = allowed_from(target) if only_from is None else allowed_from(target) & frozenset(only_from)
    columns = {"status": target, "event_count": Job.event_count + 1, "wish": None, **(values or {})}
    if target is not JobStatus.RUNNING:
        columns["lease_expires_at"] = None
    if target in TERMINAL:
        columns["finished_at"] = func.now()
    statement = update(Job).where(Job.id == job_id, Job.status.in_(sources))
    if attempt is not None:
        statement = statement.where(Job.attempt == attempt)
    job = session.scalars(
        statement.values(columns).returning(Job),
        execution_options={"populate_existing": True},
    ).one_or_none()
    if job is not None:
        session.add(_status_event(job, seq=job.event_count))
    return job


def claim(session: Session, worker: str, lease: timedelta) -> Job | None:
    """Leases the job that has waited longest; None where none waits. No two claims get the same one."""
    job_id = session.scalar(
        select(Job.id)
        .where(Job.status == JobStatus.QUEUED)
        .order_by(Job.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if job_id is None:
        return None
    return move(
        session,
        job_id,
        JobStatus.RUNNING,
        values={
            "attempt": Job.attempt + 1,
            "worker": worker,
            "started_at": func.now(),
            "lease_expires_at": func.now() + lease,
        },
    )


def launch(session: Session, job_id: str, attempt: int, command: str, lease: timedelta) -> None:
    """Keeps the command that an attempt is started with, and renews the lease. Raises StaleAttempt."""
    mine = (Job.id == job_id, Job.attempt == attempt, Job.status == JobStatus.RUNNING)
    values = {"command": command, "lease_expires_at": func.now() + lease}
    if session.scalar(update(Job).where(*mine).values(values).returning(Job.id)) is None:
        raise StaleAttempt(job_id, attempt)


def finish(
    session: Session, job_id: str, attempt: int, status: JobStatus, failure: Failure | None, log_tail: str
) -> None:
    """Ends an attempt. Raises StaleAttempt."""
    wish = session.scalar(select(Job.wish).where(Job.id == job_id, Job.attempt == attempt).with_for_update())
    if status is JobStatus.QUEUED and wish is Wish.CANCEL:
        status = JobStatus.CANCELLED  # asked for while the attempt was ending for another reason
    values = {"failure": failure.model_dump(mode="json") if failure else None, "log_tail": log_tail}
    if move(session, job_id, status, attempt=attempt, only_from={JobStatus.RUNNING}, values=values) is None:
        raise StaleAttempt(job_id, attempt)


def request_cancel(session: Session, job_id: str) -> Job:
    """Cancels a job that waits; asks the worker of one that runs. Raises JobNotFound, IllegalMove."""
    job = session.get(Job, job_id, with_for_update=True)
    if job is None:
        raise JobNotFound(job_id)
    if job.status is JobStatus.RUNNING:
        job.wish = Wish.CANCEL
        session.flush()
    elif job.status is not JobStatus.CANCELLED and move(session, job_id, JobStatus.CANCELLED) is None:
        raise IllegalMove(job_id, job.status, JobStatus.CANCELLED)
    return job


def release_expired(session: Session, max_losses: int) -> list[Job]:
    """Takes the jobs whose worker has let the lease pass: back to the queue, or to an end."""
    expired = session.scalars(
        select(Job)
        .where(Job.status == JobStatus.RUNNING, Job.lease_expires_at < func.now())
        .with_for_update(skip_locked=True)
    ).all()
    moved = [_release(session, job, max_losses) for job in expired]
    return [job for job in moved if job is not None]


def _release(session: Session, job: Job, max_losses: int) -> Job | None:
    losses = job.losses + 1
    if job.wish is Wish.CANCEL:
        return move(session, job.id, JobStatus.CANCELLED, attempt=job.attempt)
    if losses < max_losses:
        return move(session, job.id, JobStatus.QUEUED, attempt=job.attempt, values={"losses": losses})
    failure = Failure(
        reason=FailureReason.WORKER_LOST,
        message=f"the job has lost {losses} workers; their logs say why. The recipe may be sent again",
    )
    values = {"losses": losses, "failure": failure.model_dump(mode="json")}
    return move(session, job.id, JobStatus.FAILED, attempt=job.attempt, values=values)


def queued_ids(session: Session) -> list[str]:
    """The jobs that wait, the longest waiting first."""
    return list(session.scalars(select(Job.id).where(Job.status == JobStatus.QUEUED).order_by(Job.created_at)))


def _status_event(job: Job, seq: int) -> Event:
    data: dict[str, Any] = {"status": job.status, "attempt": job.attempt}
    if job.failure is not None:
        data["failure"] = job.failure
    return Event(job_id=job.id, seq=seq, time=time.time(), type="status", data=data)
