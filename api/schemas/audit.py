from datetime import datetime
from typing import Any

from pydantic import BaseModel


class AuditEntryOut(BaseModel):
    seq: int
    at: datetime
    owner: str
    key_id: str | None
    """Null where no key was needed, or it was the settings' own."""
    action: str
    target: str | None
    request_id: str
    data: dict[str, Any] | None


class AuditPage(BaseModel):
    data: list[AuditEntryOut]
    has_more: bool
