"""Models with a job's adapter merged into the base model."""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, StringConstraints

from api.auth.who import Who
from api.context import Context
from api.http.body import described, json_body
from api.http.idempotency import Once, idempotent
from api.http.ids import JobId
from contract import patterns
from contract.failure import Failure
from contract.formatting import truncate
from store import exports
from store.access import audit
from store.artifacts import ADAPTER
from store.errors import ExportNotFound
from store.jobs import jobs
from store.models import Export
from store.paging import page


class ExportIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal["merged"] = "merged"
    """The base model with the adapter merged into it."""
    source: Annotated[str, StringConstraints(pattern=patterns.ARTIFACT)] = ADAPTER
    """One of the job's artifacts: the adapter, a checkpoint, or best.tar."""


class ExportOut(BaseModel):
    id: str
    job_id: str
    format: str
    source: str
    status: Literal["queued", "running", "succeeded", "failed"]
    attempt: int
    worker: str | None
    artifact: str | None
    """Name of the result among the job's artifacts."""
    failure: Failure | None
    created_at: datetime
    finished_at: datetime | None


class ExportPage(BaseModel):
    data: list[ExportOut]
    has_more: bool


router = APIRouter(tags=["exports"])


def _check_id(job_id: str, export_id: str) -> None:
    """Raises ExportNotFound for what can be no id: PostgreSQL does not take every text as a parameter."""
    if not re.fullmatch(r"exp_[0-9a-f]{24}", export_id):
        raise ExportNotFound(job_id, truncate(export_id))


@router.post("/jobs/{job_id}/exports", status_code=HTTPStatus.ACCEPTED, openapi_extra=described(ExportIn))
def create_export(
    services: Context, who: Who, once: Once, job_id: JobId, wanted: Annotated[ExportIn, Depends(json_body(ExportIn))]
) -> ExportOut:
    """Has a worker merge what the job has saved into its base model. The same request again gives the same export,
    unless that has failed. The result is an artifact of the job."""
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            jobs.get(session, job_id, who.scope)
            return export_out(exports.get(session, job_id, turn.made))
        export, is_new = exports.request(session, job_id, wanted.source, who.scope)
        if is_new:
            audit.record(session, who, "export.create", export.id, job=job_id, source=export.source)
        turn.complete(session, export.id)
        session.refresh(export)
        return export_out(export)


@router.get("/jobs/{job_id}/exports")
def list_exports(
    services: Context,
    who: Who,
    job_id: JobId,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> ExportPage:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        if after is not None:
            _check_id(job_id, after)
        found = page(exports.list_exports(session, job_id, limit + 1, after), limit)
        return ExportPage(data=[export_out(export) for export in found.rows], has_more=found.has_more)


@router.get("/jobs/{job_id}/exports/{export_id}")
def get_export(services: Context, who: Who, job_id: JobId, export_id: str) -> ExportOut:
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        _check_id(job_id, export_id)
        return export_out(exports.get(session, job_id, export_id))


def export_out(export: Export) -> ExportOut:
    return ExportOut.model_validate(export, from_attributes=True)
