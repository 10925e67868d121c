"""Who did what."""

from api.schemas.audit import AuditEntryOut, AuditPage
from store.access import audit
from store.session import Sessions


def newest(sessions: Sessions, limit: int, after: int | None, owner: str | None) -> AuditPage:
    with sessions.begin() as session:
        found = audit.newest(session, limit + 1, after, owner)
        told = [AuditEntryOut.model_validate(entry, from_attributes=True) for entry in found[:limit]]
    return AuditPage(data=told, has_more=len(found) > limit)
