from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from api.body import described, read_body
from api.deps import Broker, Bytes, Db, JobId, Looks, Settings
from api.idempotency import Keyed, Once
from api.owner import Owner
from api.schemas.jobs import JobOut, JobPage
from api.services import jobs as service
from api.who import Who
from contract.recipe import Recipe

router = APIRouter(tags=["jobs"])

_RECIPE_SCHEMA = Recipe.model_json_schema()


@router.post("/jobs", status_code=HTTPStatus.CREATED, openapi_extra=described(Recipe))
def create_job(
    db: Db,
    broker: Broker,
    settings: Settings,
    storage: Bytes,
    looks: Looks,
    who: Who,
    asked: Once,
    body: Annotated[bytes, Depends(read_body)],
    force: bool = False,
) -> JobOut:
    """Takes a job. One that cannot fit into the memory of any worker's machine is refused, unless with `force`: POST
    /plans tells more. Sent again with the same Idempotency-Key, it answers with the job that it made first. Owners take
    turns, so that none of them starves the others."""
    return service.submit(db, broker, settings, storage, looks, who, asked, body, force)


@router.get("/jobs")
def list_jobs(
    db: Db,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: JobId | None = None,
    owner: Owner | None = None,
) -> JobPage:
    """Newest first. `owner` is for admins, who see those of all."""
    return service.newest(db, who, limit, after, owner)


@router.get("/jobs/{job_id}")
def get_job(db: Db, who: Who, job_id: JobId) -> JobOut:
    return service.get(db, who, job_id)


@router.post("/jobs/{job_id}/cancel")
def cancel_job(db: Db, who: Who, asked: Keyed, job_id: JobId, force: bool = False) -> JobOut:
    """Ends a job. One that runs saves first, or with `force` does not; it is `cancelled` when every process of it is
    gone. 409 where it has succeeded or failed."""
    return service.cancel(db, who, asked, job_id, force)


@router.post("/jobs/{job_id}/pause")
def pause_job(db: Db, who: Who, asked: Keyed, job_id: JobId) -> JobOut:
    """Sets a job aside. One that runs saves first; it is `paused` when its devices are free. 409 where it has ended or
    is to be cancelled."""
    return service.pause(db, who, asked, job_id)


@router.post("/jobs/{job_id}/resume")
def resume_job(db: Db, broker: Broker, who: Who, asked: Keyed, job_id: JobId) -> JobOut:
    """Puts a paused job back in the queue, to go on from where it saved. 409 where it has ended or is to be
    cancelled."""
    return service.resume(db, broker, who, asked, job_id)


@router.post("/jobs/{job_id}/retry")
def retry_job(db: Db, broker: Broker, who: Who, asked: Keyed, job_id: JobId) -> JobOut:
    """Puts a job that has failed or was cancelled back in the queue, to go on from where it last saved. 409 where it
    has succeeded, is paused or is to be cancelled."""
    return service.retry(db, broker, who, asked, job_id)


@router.get("/recipe-schema")
def get_recipe_schema() -> dict[str, Any]:
    return _RECIPE_SCHEMA
