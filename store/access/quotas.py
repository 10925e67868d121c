"""What each owner may have at once. An owner has limits of its own, or those of EVERYBODY."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.errors import QuotaExceeded
from store.models import Blob, Dataset, Job, Quota

EVERYBODY = "*"
"""No owner's name."""

_QUEUED_JOBS = 1000  # where nothing else is said: enough for people, and a loop that submits jobs is stopped


@dataclass(frozen=True)
class Limits:
    """None is as much as there is room for; in an owner's own, what EVERYBODY has."""

    running_jobs: int | None
    queued_jobs: int | None
    bytes: int | None


def of(session: Session, owner: str) -> Limits:
    rows = {row.owner: row for row in session.scalars(select(Quota).where(Quota.owner.in_([owner, EVERYBODY])))}
    said = [rows[name] for name in (owner, EVERYBODY) if name in rows]

    def first(name: str) -> int | None:
        return next((limit for row in said if (limit := getattr(row, name)) is not None), None)

    queued = first("queued_jobs")
    return Limits(first("running_jobs"), _QUEUED_JOBS if queued is None else queued, first("bytes"))


def running_jobs(session: Session, owners: Collection[str]) -> dict[str, int]:
    """How many jobs may run at once, of those owners that have such a limit."""
    rows = session.execute(select(Quota.owner, Quota.running_jobs).where(Quota.running_jobs.is_not(None)))
    limits = {owner: limit for owner, limit in rows if limit is not None}
    return {name: limits.get(name, limits.get(EVERYBODY, 0)) for name in owners if {name, EVERYBODY} & limits.keys()}


def put(session: Session, owner: str, limits: Limits) -> None:
    row = {"running_jobs": limits.running_jobs, "queued_jobs": limits.queued_jobs, "bytes": limits.bytes}
    session.execute(insert(Quota).values(owner=owner, **row).on_conflict_do_update(index_elements=["owner"], set_=row))


def jobs_of(session: Session, owner: str, status: JobStatus) -> int:
    return session.scalar(select(func.count()).where(Job.owner == owner, Job.status == status)) or 0


def bytes_of(session: Session, owner: str) -> int:
    """Of the datasets that the owner has in the storage: each content once."""
    shas = select(Dataset.sha256).where(Dataset.owner == owner, Dataset.sha256.is_not(None)).distinct()
    return int(session.scalar(select(func.coalesce(func.sum(Blob.bytes), 0)).where(Blob.sha256.in_(shas))) or 0)


def check_queue(session: Session, owner: str) -> None:
    """Before the owner gets one more job. Raises QuotaExceeded. Two at once are counted one after the other."""
    limit = of(session, owner).queued_jobs
    if limit is None:
        return
    _count_one_by_one(session, f"queue of {owner}")
    count = jobs_of(session, owner, JobStatus.QUEUED)
    if count >= limit:
        raise QuotaExceeded(
            f"{owner} has {count} jobs that wait, and may have {limit}; submit more when some of them have started"
        )


def check_bytes(session: Session, owner: str, more: int) -> None:
    """Before the owner keeps `more` bytes. Raises QuotaExceeded. Two at once are counted one after the other."""
    limit = of(session, owner).bytes
    if limit is None:
        return
    _count_one_by_one(session, f"bytes of {owner}")
    total = bytes_of(session, owner) + more
    if total > limit:
        raise QuotaExceeded(f"{owner} would keep {total} bytes of datasets, and may keep {limit}: delete some first")


def _count_one_by_one(session: Session, what: str) -> None:
    """Until the transaction ends nobody else counts the same."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(what, 0))))
