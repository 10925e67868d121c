"""Limits of an owner, and how much of them is used."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from api.auth.who import Admin, Who
from api.context import Context
from api.http.body import described, json_body
from contract import patterns
from contract.status import JobStatus
from store.access import audit, quotas


def _whole(given: Any) -> Any:
    """Accepts 1.0 for 1: JSON has one kind of number."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


_Whole = BeforeValidator(_whole)
_Limit = Annotated[int, Field(ge=0, le=2**62), _Whole] | None
_Count = Annotated[int, Field(ge=0, le=2**31 - 1), _Whole] | None


class LimitsIn(BaseModel):
    """Limits of one owner; null leaves the service's default."""

    model_config = ConfigDict(extra="forbid", strict=True)

    running_jobs: _Count = None
    queued_jobs: _Count = None
    bytes: _Limit = None


class Use(BaseModel):
    running_jobs: int
    queued_jobs: int
    bytes: int


class QuotaOut(BaseModel):
    owner: str
    limits: LimitsIn
    """Null is no limit."""
    used: Use


router = APIRouter(tags=["quotas"])

_Owner = Annotated[str, Path(pattern=patterns.OWNER_OR_ALL, max_length=patterns.LONGEST_OWNER)]


@router.get("/quota")
def get_own_quota(services: Context, who: Who) -> QuotaOut:
    """The limits of the request's owner, and how much of them is used."""
    with services.sessions.begin() as session:
        return _quota(session, who.owner)


@router.get("/quotas/{owner}")
def get_quota(services: Context, who: Admin, owner: _Owner) -> QuotaOut:
    """For admins."""
    with services.sessions.begin() as session:
        return _quota(session, owner)


@router.put("/quotas/{owner}", openapi_extra=described(LimitsIn))
def set_quota(
    services: Context, who: Admin, owner: _Owner, limits: Annotated[LimitsIn, Depends(json_body(LimitsIn))]
) -> QuotaOut:
    """Gives an owner limits of its own; "*" is everybody who has none. For admins."""
    with services.sessions.begin() as session:
        quotas.set_limits(session, owner, quotas.Limits(limits.running_jobs, limits.queued_jobs, limits.bytes))
        audit.record(session, who, "quota.put", owner, **limits.model_dump())
        return _quota(session, owner)


def _quota(session: Session, owner: str) -> QuotaOut:
    limits = quotas.get_limits(session, owner)
    return QuotaOut(
        owner=owner,
        limits=LimitsIn(running_jobs=limits.running_jobs, queued_jobs=limits.queued_jobs, bytes=limits.bytes),
        used=Use(
            running_jobs=quotas.count_jobs(session, owner, JobStatus.RUNNING),
            queued_jobs=quotas.count_jobs(session, owner, JobStatus.QUEUED),
            bytes=quotas.count_bytes(session, owner),
        ),
    )
