import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.auth.owner import Owner
from api.auth.who import Who
from api.background.job_table import Viewer
from api.context import Context, Services
from api.http.body import described, read_body
from api.http.idempotency import Keyed, Once, idempotent
from api.http.ids import JobId
from api.http.json_response import json_text
from api.http.json_schema import whole_schema
from api.jobs import service
from api.jobs.schemas import JobChanges, JobDeleted, JobOut, JobPage, JobUsage, job_json
from api.jobs.view import JobView
from contract.recipe import Recipe
from contract.recipe_errors import parse_recipe
from store.access.principal import Principal

router = APIRouter(tags=["jobs"])

_LIST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of jobs, or with `Accept: text/event-stream` a stream of events whose data are of this "
        "schema.",
        "model": JobPage,
        "content": {"text/event-stream": {"schema": whole_schema(JobChanges)}},
    }
}

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
            job = service.create_job(services, who, turn, recipe, force)
            return json_text(job_json(JobView(service.get_details(services, who, job.id), None)), HTTPStatus.CREATED)
    return json_text(job_json(service.get_job(services, who, turn.made)), HTTPStatus.CREATED)


async def _wants_stream(accept: Annotated[str, Header()] = "*/*") -> bool:
    return "text/event-stream" in accept and "application/json" not in accept


@router.get("/jobs", response_class=Response, responses=_LIST)
async def list_jobs(  # parameters: the request's
    services: Context,
    who: Who,
    wants_stream: Annotated[bool, Depends(_wants_stream)],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: JobId | None = None,
    owner: Owner | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Newest first. `owner` is for admins, who see the jobs of all owners.

    With `Accept: text/event-stream` a live table: an event `jobs` with summaries of the newest 1,000 jobs and of all
    that have not ended, and then at most one a second with those that have changed. A client that comes back with
    Last-Event-ID gets what has changed since then, or the whole table again with `reset`."""
    if wants_stream:
        viewer = Viewer(who.scope or owner, who.admin)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # a proxy is to pass each event on at once
        stream = services.job_table.stream(viewer, last_event_id)
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
    return await run_in_threadpool(_page, services, who, limit, after, owner)


def _page(services: Services, who: Principal, limit: int, after: str | None, owner: str | None) -> Response:
    found = service.list_jobs(services, who, limit, after, owner)
    data = ", ".join(job_json(view) for view in found.rows)
    return json_text(f'{{"data": [{data}], "has_more": {json.dumps(found.has_more)}}}')


@router.get("/jobs/{job_id}", response_model=JobOut)
def get_job(services: Context, who: Who, job_id: JobId) -> Response:
    return json_text(job_json(service.get_job(services, who, job_id)))


@router.get("/jobs/{job_id}/usage")
def get_usage(services: Context, who: Who, job_id: JobId) -> JobUsage:
    """The memory, time and disk that a job has taken so far. POST /plans with its recipe says what it was to take."""
    return service.get_usage(services, who, job_id)


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
    """Deletes a job that has ended, with all that it has left: events, metrics, artifacts, exports, evaluations
    and training checkpoints. 409 where it has not ended, or a job that has not ended starts from its adapter."""
    service.delete_job(services, who, job_id)
    return JobDeleted(id=job_id)


@router.get("/recipe-schema")
def get_recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe."""
    return _RECIPE_SCHEMA
