"""What an owner may have, and has."""

from sqlalchemy.orm import Session

from api.schemas.quotas import LimitsIn, QuotaOut, Use
from api.settings import ApiSettings
from contract.status import JobStatus
from store import audit, quotas
from store.principal import Principal
from store.session import Sessions
from store.settings import Limits


def of(sessions: Sessions, settings: ApiSettings, owner: str) -> QuotaOut:
    with sessions.begin() as session:
        return _tell(session, settings, owner)


def put(sessions: Sessions, settings: ApiSettings, who: Principal, owner: str, limits: LimitsIn) -> QuotaOut:
    with sessions.begin() as session:
        quotas.put(session, owner, Limits(limits.running_jobs, limits.queued_jobs, limits.bytes))
        audit.record(session, who, "quota.put", owner, **limits.model_dump())
        return _tell(session, settings, owner)


def _tell(session: Session, settings: ApiSettings, owner: str) -> QuotaOut:
    limits = quotas.of(session, owner, settings.limits)
    return QuotaOut(
        owner=owner,
        limits=LimitsIn(running_jobs=limits.running_jobs, queued_jobs=limits.queued_jobs, bytes=limits.bytes),
        used=Use(
            running_jobs=quotas.jobs_of(session, owner, JobStatus.RUNNING),
            queued_jobs=quotas.jobs_of(session, owner, JobStatus.QUEUED),
            bytes=quotas.bytes_of(session, owner),
        ),
    )
