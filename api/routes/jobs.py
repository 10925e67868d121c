from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from api.deps import LONGEST_RECIPE, Broker, Db, JobId, Owner, Settings
from api.schemas.jobs import JobOut, JobPage
from api.services import jobs as service
from contract.recipe import Recipe

router = APIRouter(tags=["jobs"])

_RECIPE_SCHEMA = Recipe.model_json_schema()


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_RECIPE:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a recipe has at most {LONGEST_RECIPE} bytes")
    return bytes(body)


@router.post(
    "/jobs",
    status_code=HTTPStatus.CREATED,
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _RECIPE_SCHEMA}}}},
)
def submit(db: Db, broker: Broker, settings: Settings, owner: Owner, body: Annotated[bytes, Depends(_body)]) -> JobOut:
    """Takes a job. The header x-owner says whose it is: 1 to 100 letters, digits, or any of . _ @ -. Until there are
    keys it is an honest word of the sender. Owners take turns, so that none of them starves the others."""
    return service.submit(db, broker, settings, owner, body)


@router.get("/jobs")
def newest(db: Db, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: JobId | None = None) -> JobPage:
    return service.newest(db, limit, after)


@router.get("/jobs/{job_id}")
def get(db: Db, job_id: JobId) -> JobOut:
    return service.get(db, job_id)


@router.post("/jobs/{job_id}/cancel")
def cancel(db: Db, job_id: JobId, force: bool = False) -> JobOut:
    """Ends a job. One that runs saves first, or with `force` does not; it is `cancelled` when every process of it is
    gone. 409 where it has succeeded or failed."""
    return service.cancel(db, job_id, force)


@router.post("/jobs/{job_id}/pause")
def pause(db: Db, job_id: JobId) -> JobOut:
    """Sets a job aside. One that runs saves first; it is `paused` when its devices are free. 409 where it has ended or
    is to be cancelled."""
    return service.pause(db, job_id)


@router.post("/jobs/{job_id}/resume")
def resume(db: Db, broker: Broker, job_id: JobId) -> JobOut:
    """Puts a paused job back in the queue, to go on from where it saved. 409 where it has ended or is to be
    cancelled."""
    return service.resume(db, broker, job_id)


@router.post("/jobs/{job_id}/retry")
def retry(db: Db, broker: Broker, job_id: JobId) -> JobOut:
    """Puts a job that has failed or was cancelled back in the queue, to go on from where it last saved. 409 where it
    has succeeded, is paused or is to be cancelled."""
    return service.retry(db, broker, job_id)


@router.get("/recipe-schema")
def recipe_schema() -> dict[str, Any]:
    return _RECIPE_SCHEMA
