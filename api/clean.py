"""What the retention settings no longer keep."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.auth.who import Admin
from api.context import Context
from api.http.idempotency import Keyed, idempotent
from store.access import audit
from store.retention import Freed, Kind, Retention


class FreedOut(BaseModel):
    kind: Kind
    count: int
    """Number of files in run folders, logs, datasets or exports."""
    bytes: int


class CleanOut(BaseModel):
    dry_run: bool
    """True where nothing was deleted."""
    bytes: int
    """All that is freed."""
    data: list[FreedOut]


router = APIRouter(tags=["clean"])


@router.post("/clean")
def clean_files(services: Context, who: Admin, once: Keyed, dry_run: Annotated[bool, Query()] = False) -> CleanOut:
    """Deletes what the retention settings no longer keep, as workers do by themselves every minute; with `dry_run` it
    only says what that is. For admins. A repeated request with the same Idempotency-Key frees nothing more."""
    with idempotent(services, once) as turn:
        freed = Freed()
        if turn.made is None:
            freed = Retention(services.sessions, services.settings, services.storage).clean(dry_run)
            with services.sessions.begin() as session:
                if not dry_run:
                    audit.record(session, who, "clean", None, bytes=freed.bytes.total())
                turn.complete(session, "clean")
    found = [FreedOut(kind=kind, count=freed.count[kind], bytes=freed.bytes[kind]) for kind in Kind]
    return CleanOut(dry_run=dry_run, bytes=freed.bytes.total(), data=found)
