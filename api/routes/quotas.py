from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.body import described, json_body
from api.deps import Db
from api.schemas.quotas import LimitsIn, QuotaOut
from api.services import quotas as service
from api.who import Admin, Who
from contract import patterns

router = APIRouter(tags=["quotas"])

_Owner = Annotated[str, Path(pattern=patterns.OWNER_OR_ALL, max_length=patterns.LONGEST_OWNER)]


@router.get("/quota")
def get_own_quota(db: Db, who: Who) -> QuotaOut:
    """What the asking owner may have, and has."""
    return service.of(db, who.owner)


@router.get("/quotas/{owner}")
def get_quota(db: Db, who: Admin, owner: _Owner) -> QuotaOut:
    """For admins."""
    return service.of(db, owner)


@router.put("/quotas/{owner}", openapi_extra=described(LimitsIn))
def set_quota(db: Db, who: Admin, owner: _Owner, limits: Annotated[LimitsIn, Depends(json_body(LimitsIn))]) -> QuotaOut:
    """Gives an owner limits of its own; "*" is everybody who has none. For admins."""
    return service.put(db, who, owner, limits)
