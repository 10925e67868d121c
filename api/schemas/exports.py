from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

from contract import patterns
from contract.failure import Failure
from store.artifacts import ADAPTER
from store.models import Export


class ExportIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["merged"] = "merged"
    """The base model with the adapter in it."""
    source: Annotated[str, StringConstraints(pattern=patterns.ARTIFACT)] = ADAPTER
    """Of the job's artifacts: the adapter, a checkpoint, or best.tar."""


class ExportOut(BaseModel):
    id: str
    job_id: str
    format: str
    source: str
    status: Literal["queued", "running", "succeeded", "failed"]
    attempt: int
    worker: str | None
    artifact: str | None
    """What was made, among the job's artifacts."""
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None


class ExportPage(BaseModel):
    data: list[ExportOut]
    has_more: bool


def export_out(export: Export) -> ExportOut:
    return ExportOut.model_validate(export, from_attributes=True)
