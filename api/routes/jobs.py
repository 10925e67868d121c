from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request

from api import service
from api.deps import LONGEST_RECIPE, Broker, Db, JobId, Settings
from api.schemas import JobOut, JobPage
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
def submit(db: Db, broker: Broker, settings: Settings, body: Annotated[bytes, Depends(_body)]) -> JobOut:
    return service.submit(db, broker, settings, body)


@router.get("/jobs")
def newest(db: Db, limit: Annotated[int, Query(ge=1, le=100)] = 20, after: JobId | None = None) -> JobPage:
    return service.newest(db, limit, after)


@router.get("/jobs/{job_id}")
def get(db: Db, job_id: JobId) -> JobOut:
    return service.get(db, job_id)


@router.post("/jobs/{job_id}/cancel")
def cancel(db: Db, job_id: JobId) -> JobOut:
    return service.cancel(db, job_id)


@router.get("/recipe-schema")
def recipe_schema() -> dict[str, Any]:
    return _RECIPE_SCHEMA
