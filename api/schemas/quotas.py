from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(given: Any) -> Any:
    """To JSON 1.0 is a whole number as good as 1."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


_Whole = BeforeValidator(_whole)
_Limit = Annotated[int, Field(ge=0, le=2**62), _Whole] | None
_Count = Annotated[int, Field(ge=0, le=2**31 - 1), _Whole] | None


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
