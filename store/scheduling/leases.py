"""Which devices an attempt has. A job is locked before its leases: no two transactions wait for each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import CTE, ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from store.models import Job, Lease, Worker
from store.scheduling.planner import Device
from store.scheduling.workers import SILENCE

_NOTHING_LOADED = {"synchronize_session": False}
"""No session has objects of the rows that are changed."""

LONGEST_START = timedelta(seconds=10)
"""From the placement of a job until its worker begins it; then it is placed anew."""


@dataclass(frozen=True)
class Placed:
    """A job whose next attempt has devices."""

    job_id: str
    attempt: int
    devices: Sequence[Device]
    shared: bool

    @property
    def workers(self) -> list[str]:
        """Each is to begin its part of the attempt; the first one is to hold the job's lease."""
        return list(dict.fromkeys(device.worker for device in self.devices))


def place(session: Session, placed: Sequence[Placed]) -> None:
    """Gives the devices to these attempts."""
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


def taking_up(
    job_id: ColumnElement[str], attempt: ColumnElement[int], worker: ColumnElement[str], pid: ColumnElement[int]
) -> CTE:
    """Part of a statement: a process of the worker begins with its part of the attempt. Its rank and its devices; no
    rows where another has, or it was taken back."""
    taken = update(Lease).where(*_part(job_id, attempt, worker), Lease.begun_at.is_(None))
    return taken.values(begun_at=func.now(), pid=pid).returning(Lease.rank, Lease.number).cte("taken")


def let_go(session: Session, job_id: str, attempt: int, worker: str, pid: int) -> None:
    """The worker's process follows its part no longer. Where it has not freed it, the worker's keeper will."""
    mine = (*_part(job_id, attempt, worker), Lease.pid == pid)
    session.execute(update(Lease).where(*mine).values(pid=None), execution_options=_NOTHING_LOADED)


def follows(session: Session, job_id: str, attempt: int, worker: str, pid: int) -> bool:
    """Whether the part is still the process's own."""
    mine = select(Lease.number).where(*_part(job_id, attempt, worker), Lease.pid == pid)
    return session.scalar(mine.limit(1)) is not None


def free(session: Session, job_id: str, attempt: int, worker: str) -> None:
    """No process of the attempt is left on the worker's machine."""
    session.execute(delete(Lease).where(*_part(job_id, attempt, worker)), execution_options=_NOTHING_LOADED)


def take_back(session: Session, job_id: str) -> None:
    """What was given to the job and not begun."""
    session.execute(delete(Lease).where(Lease.job_id == job_id, Lease.begun_at.is_(None)))


def take_back_unbegun(session: Session) -> None:
    """What no worker has begun in time: its message was lost, or it has no process free. What is just begun is left
    alone."""
    for lease in session.scalars(_LATE):
        session.delete(lease)
    session.flush()


def _late() -> Select[Lease]:
    unbegun = Lease.begun_at.is_(None) & (Lease.placed_at < func.now() - LONGEST_START)
    # One of several machines has begun, and waited for the first of them; now it cannot be heard.
    head = aliased(Lease)
    headless = (
        ~select(head.job_id).where(head.job_id == Lease.job_id, head.attempt == Lease.attempt, head.rank == 0).exists()
    )
    silent = ~select(Worker.name).where(Worker.name == Lease.worker, Worker.seen_at >= func.now() - SILENCE).exists()
    waits = select(Job.id).where(Job.id == Lease.job_id, Job.attempt == Lease.attempt - 1).exists()
    return select(Lease).where(unbegun | (headless & silent & waits)).with_for_update(skip_locked=True)


_LATE = _late()


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


def _part(
    job_id: str | ColumnElement[str], attempt: int | ColumnElement[int], worker: str | ColumnElement[str]
) -> tuple[ColumnElement[bool], ...]:
    return Lease.job_id == job_id, Lease.attempt == attempt, Lease.worker == worker
