from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Limit = Annotated[int, Field(ge=0, le=2**62)] | None
_Count = Annotated[int, Field(ge=0, le=2**31 - 1)] | None


class LimitsIn(BaseModel):
    """Of one owner; null leaves the service's own."""

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
    """Null is no limit."""
    used: Use
