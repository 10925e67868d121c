"""Which devices an attempt has. A job is locked before its leases: no two transactions wait for each other."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from store.models import Lease
from store.plan import Device

LONGEST_START = timedelta(seconds=10)
"""From the placement of a job until its worker begins it; then it is placed anew."""


def place(session: Session, job_id: str, attempt: int, devices: Sequence[Device], shared: bool) -> list[str]:
    """Gives devices to the job's next attempt. The machines, the first of which is to hold the job's lease."""
    machines = list(dict.fromkeys(device.worker for device in devices))
    session.add_all(
        Lease(
            job_id=job_id,
            worker=device.worker,
            number=device.number,
            attempt=attempt,
            rank=machines.index(device.worker),
            shared=shared,
        )
        for device in devices
    )
    return machines


def take_up(session: Session, job_id: str, attempt: int, worker: str, pid: int) -> list[Lease]:
    """A process of the worker begins with its part of the attempt; none where another has, or it was taken back."""
    statement = update(Lease).where(*_part(job_id, attempt, worker), Lease.begun_at.is_(None))
    taken = session.scalars(statement.values(begun_at=func.now(), pid=pid).returning(Lease))
    return sorted(taken, key=lambda lease: lease.number)


def let_go(session: Session, job_id: str, attempt: int, worker: str) -> None:
    """The worker's process follows its part no longer. Where it has not freed it, the worker's keeper will."""
    session.execute(update(Lease).where(*_part(job_id, attempt, worker)).values(pid=None))


def free(session: Session, job_id: str, attempt: int, worker: str) -> None:
    """No process of the attempt is left on the worker's machine."""
    session.execute(delete(Lease).where(*_part(job_id, attempt, worker)))


def take_back(session: Session, job_id: str) -> None:
    """What was given to the job and not begun."""
    session.execute(delete(Lease).where(Lease.job_id == job_id, Lease.begun_at.is_(None)))


def take_back_unbegun(session: Session) -> None:
    """What no worker has begun in time: its message was lost, or it has no process free. What is just begun is left
    alone."""
    late = select(Lease).where(Lease.begun_at.is_(None), Lease.placed_at < func.now() - LONGEST_START)
    for lease in session.scalars(late.with_for_update(skip_locked=True)):
        session.delete(lease)
    session.flush()


def unbegun(session: Session, worker: str) -> set[tuple[str, int]]:
    """(job, attempt) that the worker is to begin."""
    waiting = select(Lease.job_id, Lease.attempt).where(Lease.worker == worker, Lease.begun_at.is_(None))
    return {(job_id, attempt) for job_id, attempt in session.execute(waiting)}


def machines(session: Session, job_id: str, attempt: int) -> set[str]:
    """On which the attempt still has, or is to have, a process."""
    return set(session.scalars(select(Lease.worker).where(Lease.job_id == job_id, Lease.attempt == attempt)))


def has_head(session: Session, job_id: str, attempt: int) -> bool:
    """Whether the machine that is to run the attempt still has its devices."""
    part = select(Lease.job_id).where(Lease.job_id == job_id, Lease.attempt == attempt, Lease.rank == 0)
    return session.scalar(part.limit(1)) is not None


def begun(session: Session, worker: str) -> list[Lease]:
    """Of the worker: one for each attempt, whatever the number of its devices."""
    leases = select(Lease).where(Lease.worker == worker, Lease.begun_at.is_not(None)).order_by(Lease.number)
    return list({(lease.job_id, lease.attempt): lease for lease in session.scalars(leases)}.values())


def of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, list[Device]]:
    leases = select(Lease).where(Lease.job_id.in_(job_ids)).order_by(Lease.rank, Lease.number)
    found: dict[str, list[Device]] = {}
    for lease in session.scalars(leases):
        found.setdefault(lease.job_id, []).append(Device(lease.worker, lease.number))
    return found


def _part(job_id: str, attempt: int, worker: str) -> tuple[ColumnElement[bool], ...]:
    return Lease.job_id == job_id, Lease.attempt == attempt, Lease.worker == worker
