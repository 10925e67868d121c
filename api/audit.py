"""Who did what."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, StringConstraints

from api.auth.owner import Owner
from api.auth.who import Admin
from api.context import Context
from contract import patterns
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


_Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)]

router = APIRouter(tags=["audit"])


@router.get("/audit")
def list_audit_entries(  # parameters: the request's
    services: Context,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    owner: Owner | None = None,
    action: _Word | None = None,
    target: _Word | None = None,
) -> AuditPage:
    """Who did what, newest first; `after` is the last seq of the page before. `action` is one such as "job.cancel", and
    `target` the id of an object. Entries are never removed. For admins."""
    with services.sessions.begin() as session:
        found = page(audit.list_entries(session, limit + 1, after, audit.Chosen(owner, action, target)), limit)
        entries = [AuditEntryOut.model_validate(entry, from_attributes=True) for entry in found.rows]
    return AuditPage(data=entries, has_more=found.has_more)
