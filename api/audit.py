"""Who did what."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.auth.owner import Owner
from api.auth.who import Admin
from api.context import Context
from store.access import audit
from store.paging import page


class AuditEntryOut(BaseModel):
    seq: int
    at: datetime
    owner: str
    key_id: str | None
    """Null if no key was needed, or for the key of the settings."""
    action: str
    target: str | None
    request_id: str
    data: dict[str, Any] | None


class AuditPage(BaseModel):
    data: list[AuditEntryOut]
    has_more: bool


router = APIRouter(tags=["audit"])


@router.get("/audit")
def list_audit_entries(
    services: Context,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    owner: Owner | None = None,
) -> AuditPage:
    """Who did what, newest first; `after` is the last seq of the page before. Entries are never removed. For admins."""
    with services.sessions.begin() as session:
        found = page(audit.list_entries(session, limit + 1, after, owner), limit)
        entries = [AuditEntryOut.model_validate(entry, from_attributes=True) for entry in found.rows]
    return AuditPage(data=entries, has_more=found.has_more)
