from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from api.auth.owner import Owner
from api.auth.who import Who
from api.context import Context
from api.http.body import described, read_body
from api.http.idempotency import Keyed, Once, idempotent
from api.http.ids import JobId
from api.http.json_response import json_response
from api.jobs import service
from api.jobs.schemas import JobDeleted, JobOut, JobPage, job_out
from api.jobs.view import JobView
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe

router = APIRouter(tags=["jobs"])

_RECIPE_SCHEMA = Recipe.model_json_schema()


@router.post("/jobs", status_code=HTTPStatus.CREATED, response_model=JobOut, openapi_extra=described(Recipe))
def create_job(
    services: Context, who: Who, once: Once, body: Annotated[bytes, Depends(read_body)], force: bool = False
) -> Response:
    """Creates a job. A recipe that cannot fit into the memory of any worker's machine is refused, unless with `force`:
    POST /plans says more. Sent again with the same Idempotency-Key, it answers with the job that was made first. Owners
    take turns, so that none of them starves the others. The answer's `queue` is null: GET the job for its position."""
    recipe = parse_recipe(body)
    with idempotent(services, once) as turn:
        if turn.made is None:
            made = JobView(service.create_job(services, who, turn, recipe, force))
            return json_response(job_out(made), HTTPStatus.CREATED)
    return json_response(job_out(service.get_job(services, who, turn.made)), HTTPStatus.CREATED)


@router.get("/jobs", response_model=JobPage)
def list_jobs(
    services: Context,
    who: Who,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: JobId | None = None,
    owner: Owner | None = None,
) -> Response:
    """Newest first. `owner` is for admins, who see the jobs of all owners."""
    found = service.list_jobs(services, who, limit, after, owner)
    return json_response(JobPage(data=[job_out(view) for view in found.rows], has_more=found.has_more))


@router.get("/jobs/{job_id}", response_model=JobOut)
def get_job(services: Context, who: Who, job_id: JobId) -> Response:
    return json_response(job_out(service.get_job(services, who, job_id)))


@router.post("/jobs/{job_id}/cancel", response_model=JobOut)
def cancel_job(services: Context, who: Who, once: Keyed, job_id: JobId, force: bool = False) -> Response:
    """Ends a job. A running one saves first, or with `force` does not; it is `cancelled` when all its processes are
    gone. 409 where it has succeeded or failed."""
    service.cancel_job(services, who, once, job_id, force)
    return get_job(services, who, job_id)


@router.post("/jobs/{job_id}/pause", response_model=JobOut)
def pause_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> Response:
    """Sets a job aside. A running one saves first; it is `paused` when its devices are free. 409 where it has ended or
    is being cancelled."""
    service.pause_job(services, who, once, job_id)
    return get_job(services, who, job_id)


@router.post("/jobs/{job_id}/resume", response_model=JobOut)
def resume_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> Response:
    """Puts a paused job back in the queue; it continues from where it saved. 409 where it has ended or is being
    cancelled."""
    service.resume_job(services, who, once, job_id)
    return get_job(services, who, job_id)


@router.post("/jobs/{job_id}/retry", response_model=JobOut)
def retry_job(services: Context, who: Who, once: Keyed, job_id: JobId) -> Response:
    """Puts a failed or cancelled job back in the queue; it continues from where it last saved. 409 where it has
    succeeded, is paused or is being cancelled."""
    service.retry_job(services, who, once, job_id)
    return get_job(services, who, job_id)


@router.delete("/jobs/{job_id}")
def delete_job(services: Context, who: Who, job_id: JobId) -> JobDeleted:
    """Deletes a job that has ended, with all that it has left: events, metrics, artifacts, exports and training
    checkpoints. 409 where it has not ended, or a job that has not ended starts from its adapter."""
    service.delete_job(services, who, job_id)
    return JobDeleted(id=job_id)


@router.get("/recipe-schema")
def get_recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe."""
    return _RECIPE_SCHEMA
