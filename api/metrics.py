"""A job's metrics, and the samples of its evaluations."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context
from api.http.ids import LARGEST_INTEGER, JobId
from store.errors import JobNotFound
from store.jobs import jobs, progress
from store.session import autocommit


class Evaluations(BaseModel):
    step: list[int]
    eval_loss: list[float]


class Metrics(BaseModel):
    job_id: str
    columns: dict[str, list[float | bool | None]]
    """One list per column, all of one length, by step."""
    evaluations: Evaluations


class Sample(BaseModel):
    step: int
    index: int
    """Index of the prompt, from 0; every evaluation uses the same prompts."""
    prompt: str
    expected: str
    generated: str


class SampleList(BaseModel):
    data: list[Sample]


router = APIRouter()


@router.get("/jobs/{job_id}/metrics", tags=["metrics"], response_class=Response, responses={200: {"model": Metrics}})
def get_metrics(  # parameters: the request's
    services: Context,
    who: Who,
    job_id: JobId,
    since_step: Annotated[int, Query(ge=0, le=LARGEST_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    downsample: Annotated[int | None, Query(ge=2, le=10_000)] = None,
) -> Response:
    """The metrics after `since_step` as columns, ready to plot; `downsample` thins them to about so many points."""
    with autocommit(services.sessions) as connection:
        found = progress.curves(connection, job_id, who.scope, since_step, limit, downsample)
    if found is None:
        raise JobNotFound(job_id)
    return Response(found, media_type="application/json")


@router.get("/jobs/{job_id}/samples", tags=["samples"])
def list_samples(
    services: Context, who: Who, job_id: JobId, step: Annotated[int | None, Query(ge=0, le=LARGEST_INTEGER)] = None
) -> SampleList:
    """What the model answered at the evaluation at `step`; without it, at the latest one."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        return SampleList.model_validate({"data": progress.samples(session, job_id, step)})
