from typing import Annotated

from fastapi import APIRouter, Depends

from api.body import described, read_body
from api.deps import Bytes, Db, Looks, Settings
from api.idempotency import Once
from api.schemas.plans import PlanOut
from api.services import plans as service
from api.who import Who
from contract.recipe import Recipe

router = APIRouter(tags=["plans"])


@router.post("/plans", openapi_extra=described(Recipe))
def create_plan(
    db: Db,
    settings: Settings,
    storage: Bytes,
    looks: Looks,
    who: Who,
    asked: Once,
    body: Annotated[bytes, Depends(read_body)],
) -> PlanOut:
    """What a recipe would take, without training it: parameters, steps, tokens, memory on each kind of device and what
    would make it fit, disk, and time. What cannot be known is null, and `unknown` says why."""
    return service.plan(db, settings, storage, looks, who, asked, body)
