"""What each owner may have at once."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.errors import QuotaExceeded
from store.models import Blob, Dataset, Job, Quota
from store.settings import Limits


def of(session: Session, owner: str, default: Limits) -> Limits:
    row = session.get(Quota, owner)
    if row is None:
        return default
    return Limits(
        running_jobs=default.running_jobs if row.running_jobs is None else row.running_jobs,
        queued_jobs=default.queued_jobs if row.queued_jobs is None else row.queued_jobs,
        bytes=default.bytes if row.bytes is None else row.bytes,
    )


def put(session: Session, owner: str, limits: Limits) -> None:
    """An owner's own limits; what is None there is the settings'."""
    row = {"running_jobs": limits.running_jobs, "queued_jobs": limits.queued_jobs, "bytes": limits.bytes}
    session.execute(insert(Quota).values(owner=owner, **row).on_conflict_do_update(index_elements=["owner"], set_=row))


def jobs_of(session: Session, owner: str, status: JobStatus) -> int:
    return session.scalar(select(func.count()).where(Job.owner == owner, Job.status == status)) or 0


def bytes_of(session: Session, owner: str) -> int:
    """Of the datasets that the owner has in the storage: each content once."""
    shas = select(Dataset.sha256).where(Dataset.owner == owner, Dataset.sha256.is_not(None)).distinct()
    return int(session.scalar(select(func.coalesce(func.sum(Blob.bytes), 0)).where(Blob.sha256.in_(shas))) or 0)


def check_queue(session: Session, owner: str, default: Limits) -> None:
    """Before the owner gets one more job. Raises QuotaExceeded. Two at once are counted one after the other."""
    limit = of(session, owner, default).queued_jobs
    if limit is None:
        return
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"queue of {owner}", 0))))
    count = jobs_of(session, owner, JobStatus.QUEUED)
    if count >= limit:
        raise QuotaExceeded(
            f"{owner} has {count} jobs that wait, and may have {limit}; submit more when some of them have started"
        )


def check_bytes(session: Session, owner: str, default: Limits, more: int) -> None:
    """Before the owner keeps `more` bytes. Raises QuotaExceeded."""
    limit = of(session, owner, default).bytes
    if limit is None:
        return
    has = bytes_of(session, owner)
    if has + more > limit:
        raise QuotaExceeded(
            f"{owner} keeps {has} bytes of datasets and may keep {limit}; {more} more do not fit: delete some first"
        )
