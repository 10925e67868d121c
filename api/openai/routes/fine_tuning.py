import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from api.auth.who import Who
from api.context import Context
from api.errors import InvalidParameter
from api.http.body import described, json_body
from api.http.idempotency import Keyed, Once
from api.http.ids import JobId
from api.openai import jobs
from api.openai.mapping import JobAsked
from api.openai.schemas import CheckpointList, EventList, FineTuningJob, JobList

router = APIRouter(prefix="/v1/fine_tuning", tags=["openai"])

_Limit = Annotated[int, Query(ge=1, le=100)]
_After = Annotated[str | None, Query(max_length=200)]

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _metadata(request: Request) -> dict[str, str] | None:
    """The filter of a list: metadata[k]=v, any number of them, or metadata=null for those without any. Raises
    InvalidParameter."""
    given = {found[1]: value for name, value in request.query_params.items() if (found := _METADATA.fullmatch(name))}
    for text in (*given, *given.values()):
        if "\0" in text:
            raise InvalidParameter("metadata", text, "no metadata has a NUL in it; leave it out")
    if given:
        return given
    return {} if request.query_params.get("metadata") == "null" else None


@router.post("/jobs", openapi_extra=described(JobAsked))
def create_fine_tuning_job(
    services: Context,
    who: Who,
    once: Once,
    asked: Annotated[JobAsked, Depends(json_body(JobAsked))],
    force: bool = False,
) -> FineTuningJob:
    """A job, by the names of OpenAI's wire. A recipe of our own may ride along in `recipe`. One that cannot fit into
    the memory of any worker's machine is refused, unless with `force`."""
    return jobs.create(services, who, once, asked, force)


@router.get("/jobs")
def list_fine_tuning_jobs(
    services: Context,
    who: Who,
    metadata: Annotated[dict[str, str] | None, Depends(_metadata)],
    limit: _Limit = 20,
    after: JobId | None = None,
) -> JobList:
    return jobs.newest(services, who, limit, after, metadata)


@router.get("/jobs/{job_id}")
def get_fine_tuning_job(services: Context, who: Who, job_id: JobId) -> FineTuningJob:
    return jobs.get(services, who, job_id)


@router.post("/jobs/{job_id}/cancel")
def cancel_fine_tuning_job(services: Context, who: Who, asked: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.cancel(services, who, asked, job_id)


@router.post("/jobs/{job_id}/pause")
def pause_fine_tuning_job(services: Context, who: Who, asked: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.pause(services, who, asked, job_id)


@router.post("/jobs/{job_id}/resume")
def resume_fine_tuning_job(services: Context, who: Who, asked: Keyed, job_id: JobId) -> FineTuningJob:
    return jobs.resume(services, who, asked, job_id)


@router.get("/jobs/{job_id}/events")
def list_fine_tuning_events(
    services: Context, who: Who, job_id: JobId, limit: _Limit = 20, after: _After = None
) -> EventList:
    return jobs.events(services, who, job_id, limit, after)


@router.get("/jobs/{job_id}/checkpoints")
def list_fine_tuning_checkpoints(
    services: Context, who: Who, job_id: JobId, limit: _Limit = 10, after: _After = None
) -> CheckpointList:
    return jobs.checkpoints(services, who, job_id, limit, after)
