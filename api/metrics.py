"""A job's metrics, and the samples of its evaluations."""

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context
from api.errors import InvalidParameter
from api.http.ids import LARGEST_INTEGER, JobId
from store.errors import JobNotFound
from store.jobs import curves, jobs, progress
from store.session import Sessions, read_snapshot


class Evaluations(BaseModel):
    step: list[int]
    eval_loss: list[float]
    time: list[float]
    """Seconds since the epoch."""


class Metrics(BaseModel):
    job_id: str
    columns: dict[str, list[float | bool | None]]
    """One list per column, all of one length, by step. `step`, `time`, `epoch` and `tokens` are always there; `tokens`
    counts all tokens trained on since the first step."""
    evaluations: Evaluations
    total: int
    """Number of steps in the requested range."""
    thinned: bool
    """Whether the columns have fewer steps than that."""


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


_NAME = f"({'|'.join(curves.COLUMNS)})"
NAMES = f"^{_NAME}(,{_NAME})*$"
Step = Annotated[int, Query(ge=0, le=LARGEST_INTEGER)]


def _columns(
    columns: Annotated[
        str | None,
        Query(description="Names separated by commas; without it, all.", json_schema_extra={"pattern": NAMES}),
    ] = None,
) -> Sequence[str]:
    if columns is None:
        return curves.COLUMNS
    names = columns.split(",")
    unknown = [name for name in names if name not in curves.COLUMNS]
    if unknown:
        raise InvalidParameter("columns", unknown[0], f"give some of {', '.join(curves.COLUMNS)}, separated by commas")
    return names


@router.get("/jobs/{job_id}/metrics", tags=["metrics"], response_class=Response, responses={200: {"model": Metrics}})
def get_metrics(  # parameters: the request's
    services: Context,
    who: Who,
    job_id: JobId,
    columns: Annotated[Sequence[str], Depends(_columns)],
    points: Annotated[int | None, Query(ge=2, le=10_000)] = None,
    from_step: Step = 0,
    to_step: Step = LARGEST_INTEGER,
    since_step: Step = 0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 100_000,
) -> Response:
    """The metrics as columns, ready to plot: from `from_step` to `to_step`, or for clients that poll those after
    `since_step`; the first `limit` of them.

    With `points` a curve is thinned, and keeps its spikes: the steps are divided into half as many groups, and of each
    group those stay that have the least or the largest value of a column, besides the first and the last of all."""
    wanted = curves.CurveRange(columns, max(since_step, from_step - 1), to_step, limit, points)
    with read_snapshot(services.sessions) as session:
        found = curves.read(session, job_id, who.scope, wanted)
    if found is None:
        raise JobNotFound(job_id)
    return Response(found, media_type="application/json")


@router.get(
    "/jobs/{job_id}/metrics.csv",
    tags=["metrics"],
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def download_metrics(services: Context, who: Who, job_id: JobId) -> Response:
    """Every step with all columns, as CSV, while the job runs too. `tokens` counts from the first step."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
    headers = {"content-disposition": f'attachment; filename="{job_id}.csv"', "x-content-type-options": "nosniff"}
    return StreamingResponse(_csv(services.sessions, job_id), media_type="text/csv", headers=headers)


def _csv(sessions: Sessions, job_id: str) -> Iterator[str]:
    yield ",".join(curves.COLUMNS) + "\n"
    for rows in curves.list_steps(sessions, job_id):
        page = StringIO()
        csv.writer(page, lineterminator="\n").writerows(rows)
        yield page.getvalue()


@router.get("/jobs/{job_id}/samples", tags=["samples"])
def list_samples(
    services: Context, who: Who, job_id: JobId, step: Annotated[int | None, Query(ge=0, le=LARGEST_INTEGER)] = None
) -> SampleList:
    """What the model answered at the evaluation at `step`; without it, at the latest one."""
    with services.sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        return SampleList.model_validate({"data": progress.samples(session, job_id, step)})
