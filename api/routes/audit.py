from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Db
from api.owner import Owner
from api.schemas.audit import AuditPage
from api.services import audit as service
from api.who import Admin

router = APIRouter(tags=["audit"])


@router.get("/audit")
def list_audit_entries(
    db: Db,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    owner: Owner | None = None,
) -> AuditPage:
    """Who did what, newest first; `after` is the last seq of the page before. Nothing is ever taken off it. For
    admins."""
    return service.newest(db, limit, after, owner)
