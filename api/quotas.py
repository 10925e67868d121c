"""Limits of an owner, and how much of them is used."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlalchemy.orm import Session

from api.auth.owner import Owner
from api.auth.who import Admin, Who
from api.context import Context
from api.http.body import described, json_body
from contract import patterns
from store.access import audit, quotas
from store.paging import page


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
    """Those that apply to the owner; null is no limit."""
    own_limits: LimitsIn
    """Those that were set for this owner; where one is null, that of "*" or the service's default applies."""
    used: Use


class QuotaPage(BaseModel):
    data: list[QuotaOut]
    has_more: bool


router = APIRouter(tags=["quotas"])

_Owner = Annotated[str, Path(pattern=patterns.OWNER_OR_ALL, max_length=patterns.LONGEST_OWNER)]


@router.get("/quota")
def get_own_quota(services: Context, who: Who) -> QuotaOut:
    """The limits of the request's owner, and how much of them is used."""
    with services.sessions.begin() as session:
        return _quotas(session, [who.owner])[0]


@router.get("/quotas")
def list_quotas(
    services: Context, who: Admin, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: Owner | None = None
) -> QuotaPage:
    """Owners with a job, a dataset, a key or limits, by name, and what each uses; `after` is the last one of the page
    before. For admins."""
    with services.sessions.begin() as session:
        found = page(quotas.list_owners(session, limit + 1, after), limit)
        return QuotaPage(data=_quotas(session, found.rows), has_more=found.has_more)


@router.get("/quotas/{owner}")
def get_quota(services: Context, who: Admin, owner: _Owner) -> QuotaOut:
    """For admins."""
    with services.sessions.begin() as session:
        return _quotas(session, [owner])[0]


@router.put("/quotas/{owner}", openapi_extra=described(LimitsIn))
def set_quota(
    services: Context, who: Admin, owner: _Owner, limits: Annotated[LimitsIn, Depends(json_body(LimitsIn))]
) -> QuotaOut:
    """Gives an owner limits of its own; "*" is everybody who has none. For admins."""
    with services.sessions.begin() as session:
        quotas.set_limits(session, owner, quotas.Limits(limits.running_jobs, limits.queued_jobs, limits.bytes))
        audit.record(session, who, "quota.put", owner, **limits.model_dump())
        return _quotas(session, [owner])[0]


def _quotas(session: Session, owners: Sequence[str]) -> list[QuotaOut]:
    limits, used = quotas.list_limits(session, owners), quotas.list_usage(session, owners)
    return [
        QuotaOut(
            owner=owner,
            limits=_limits(limits[owner].effective),
            own_limits=_limits(limits[owner].own),
            used=Use.model_validate(used[owner], from_attributes=True),
        )
        for owner in owners
    ]


def _limits(limits: quotas.Limits) -> LimitsIn:
    return LimitsIn.model_validate(limits, from_attributes=True)
