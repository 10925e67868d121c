from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from api.body import described, json_body
from api.deps import Db, JobId
from api.idempotency import Once
from api.schemas.exports import ExportIn, ExportOut, ExportPage
from api.services import exports as service
from api.who import Who

router = APIRouter(tags=["exports"])


@router.post("/jobs/{job_id}/exports", status_code=HTTPStatus.ACCEPTED, openapi_extra=described(ExportIn))
def create_export(
    db: Db, who: Who, asked: Once, job_id: JobId, wanted: Annotated[ExportIn, Depends(json_body(ExportIn))]
) -> ExportOut:
    """Has a worker merge what the job has saved into its base model. Asked again it gives the same export, unless that
    has failed. What was made is an artifact of the job."""
    return service.create(db, who, asked, job_id, wanted)


@router.get("/jobs/{job_id}/exports")
def list_exports(
    db: Db, who: Who, job_id: JobId, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: str | None = None
) -> ExportPage:
    return service.newest(db, who, job_id, limit, after)


@router.get("/jobs/{job_id}/exports/{export_id}")
def get_export(db: Db, who: Who, job_id: JobId, export_id: str) -> ExportOut:
    return service.get(db, who, job_id, export_id)
