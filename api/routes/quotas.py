from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.body import described, json_body
from api.deps import Db, Settings
from api.schemas.quotas import LimitsIn, QuotaOut
from api.services import quotas as service
from api.who import Admin, Who

router = APIRouter(tags=["quotas"])

_Owner = Annotated[str, Path(pattern=r"^[\w.@-]{1,100}$")]


@router.get("/quota")
def own(db: Db, settings: Settings, who: Who) -> QuotaOut:
    """What the asking owner may have, and has."""
    return service.of(db, settings, who.owner)


@router.get("/quotas/{owner}")
def of(db: Db, settings: Settings, who: Admin, owner: _Owner) -> QuotaOut:
    """For admins."""
    return service.of(db, settings, owner)


@router.put("/quotas/{owner}", openapi_extra=described(LimitsIn))
def put(
    db: Db, settings: Settings, who: Admin, owner: _Owner, limits: Annotated[LimitsIn, Depends(json_body(LimitsIn))]
) -> QuotaOut:
    """Gives an owner limits of its own. For admins."""
    return service.put(db, settings, who, owner, limits)
