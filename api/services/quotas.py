"""What an owner may have, and has."""

from sqlalchemy.orm import Session

from api.schemas.quotas import LimitsIn, QuotaOut, Use
from contract.status import JobStatus
from store.access import audit, quotas
from store.access.principal import Principal
from store.session import Sessions


def of(sessions: Sessions, owner: str) -> QuotaOut:
    with sessions.begin() as session:
        return _tell(session, owner)


def put(sessions: Sessions, who: Principal, owner: str, limits: LimitsIn) -> QuotaOut:
    with sessions.begin() as session:
        quotas.put(session, owner, quotas.Limits(limits.running_jobs, limits.queued_jobs, limits.bytes))
        audit.record(session, who, "quota.put", owner, **limits.model_dump())
        return _tell(session, owner)


def _tell(session: Session, owner: str) -> QuotaOut:
    limits = quotas.of(session, owner)
    return QuotaOut(
        owner=owner,
        limits=LimitsIn(running_jobs=limits.running_jobs, queued_jobs=limits.queued_jobs, bytes=limits.bytes),
        used=Use(
            running_jobs=quotas.jobs_of(session, owner, JobStatus.RUNNING),
            queued_jobs=quotas.jobs_of(session, owner, JobStatus.QUEUED),
            bytes=quotas.bytes_of(session, owner),
        ),
    )
