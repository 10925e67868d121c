"""Leases of devices by attempts. A job is always locked before its leases, so that transactions cannot deadlock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import CTE, ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from store.models import Job, Lease
from store.scheduling import workers
from store.scheduling.situation import DeviceRef

_NOTHING_LOADED = {"synchronize_session": False}
"""For statements on rows of which no session holds objects."""

LONGEST_START = timedelta(seconds=10)
"""Longest time between the placement of a job and its start; after that it is placed again."""


@dataclass(frozen=True)
class Placement:
    """The devices given to the next attempt at a job."""

    job_id: str
    attempt: int
    devices: Sequence[DeviceRef]
    shared: bool
    traceparent: str | None = None
    """The span of the request that created the job."""

    @property
    def workers(self) -> list[str]:
        """Workers that are to start a part of the attempt; the first one holds the job's lease."""
        return list(dict.fromkeys(device.worker for device in self.devices))


def place(session: Session, placed: Sequence[Placement]) -> None:
    """Leases the devices to these attempts."""
    rows = [
        {
            "job_id": each.job_id,
            "worker": device.worker,
            "number": device.number,
            "attempt": each.attempt,
            "rank": each.workers.index(device.worker),
            "shared": each.shared,
        }
        for each in placed
        for device in each.devices
    ]
    if rows:
        session.execute(insert(Lease), rows)


def claim(  # parameters: those of the statement
    job: CTE,
    job_id: ColumnElement[str],
    attempt: ColumnElement[int],
    worker: ColumnElement[str],
    pid: ColumnElement[int],
) -> CTE:
    """The part of a statement by which a process of the worker claims its part of the attempt, where `job` has locked
    the job. Returns rank and devices; no rows where another process has claimed it, or it was revoked."""
    locked = select(job.c.id).exists()  # not a join, for which PostgreSQL would read all leases
    taken = update(Lease).where(locked, *_part(job_id, attempt, worker), Lease.begun_at.is_(None))
    return taken.values(begun_at=func.now(), pid=pid).returning(Lease.rank, Lease.number).cte("taken")


def release(session: Session, job_id: str, attempt: int, worker: str, pid: int) -> None:
    """Records that the process no longer follows its part. If the devices are still leased, the worker's reconciler
    frees them."""
    mine = (*_part(job_id, attempt, worker), Lease.pid == pid)
    session.execute(update(Lease).where(*mine).values(pid=None), execution_options=_NOTHING_LOADED)


def follows(session: Session, job_id: str, attempt: int, worker: str, pid: int) -> bool:
    """Whether the process still owns the part."""
    mine = select(Lease.number).where(*_part(job_id, attempt, worker), Lease.pid == pid)
    return session.scalar(mine.limit(1)) is not None


def free(session: Session, job_id: str, attempt: int, worker: str) -> None:
    """Frees the devices, once no process of the attempt is left on the worker's machine."""
    session.execute(delete(Lease).where(*_part(job_id, attempt, worker)), execution_options=_NOTHING_LOADED)


def revoke(session: Session, job_id: str) -> None:
    """Revokes the leases of the job that were not started."""
    session.execute(delete(Lease).where(Lease.job_id == job_id, Lease.begun_at.is_(None)))


def revoke_not_started(session: Session) -> None:
    """Revokes the leases that no worker has started in time: the message was lost, or no process was free. Skips those
    that are being started."""
    for lease in session.scalars(_LATE):
        session.delete(lease)
    session.flush()


def _late() -> Select[Lease]:
    late = Lease.begun_at.is_(None) & (Lease.placed_at < func.now() - LONGEST_START)
    # One of several machines has started and waited for the first one, and is silent now.
    head = aliased(Lease)
    headless = (
        ~select(head.job_id).where(head.job_id == Lease.job_id, head.attempt == Lease.attempt, head.rank == 0).exists()
    )
    silent = ~workers.alive(Lease.worker)
    waits = select(Job.id).where(Job.id == Lease.job_id, Job.attempt == Lease.attempt - 1).exists()
    return select(Lease).where(late | (headless & silent & waits)).with_for_update(skip_locked=True)


_LATE = _late()


def not_started(session: Session, worker: str) -> set[tuple[str, int]]:
    """The attempts, as (job, attempt), that the worker is to start."""
    waiting = select(Lease.job_id, Lease.attempt).where(Lease.worker == worker, Lease.begun_at.is_(None))
    return {(job_id, attempt) for job_id, attempt in session.execute(waiting)}


def machines(session: Session, job_id: str, attempt: int) -> set[str]:
    """The workers on which the attempt has a process, or is to have one."""
    return set(session.scalars(select(Lease.worker).where(Lease.job_id == job_id, Lease.attempt == attempt)))


def has_head(session: Session, job_id: str, attempt: int) -> bool:
    """Whether the machine of rank 0 still has its devices."""
    part = select(Lease.job_id).where(Lease.job_id == job_id, Lease.attempt == attempt, Lease.rank == 0)
    return session.scalar(part.limit(1)) is not None


def list_started(session: Session, worker: str) -> list[Lease]:
    """The started leases of the worker, one for each attempt."""
    leases = select(Lease).where(Lease.worker == worker, Lease.begun_at.is_not(None)).order_by(Lease.number)
    return list({(lease.job_id, lease.attempt): lease for lease in session.scalars(leases)}.values())


def _part(
    job_id: str | ColumnElement[str], attempt: int | ColumnElement[int], worker: str | ColumnElement[str]
) -> tuple[ColumnElement[bool], ...]:
    return Lease.job_id == job_id, Lease.attempt == attempt, Lease.worker == worker
