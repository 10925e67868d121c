import json
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.deps import Db
from api.schemas import Metrics
from store import jobs, progress

router = APIRouter(tags=["metrics"])


@router.get("/jobs/{job_id}/metrics", response_class=Response, responses={200: {"model": Metrics}})
def metrics(
    db: Db,
    job_id: str,
    since_step: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    downsample: Annotated[int | None, Query(ge=2, le=10_000)] = None,
) -> Response:
    """The metrics after `since_step` as columns fit to plot; `downsample` thins them to about so many points."""
    with db.begin() as session:
        job = jobs.get(session, job_id)
        columns = progress.metric_columns(session, job_id, since_step, limit, downsample)
        evaluations = progress.evaluation_columns(session, job_id)
    body = f'{{"job_id": {json.dumps(job.id)}, "columns": {columns}, "evaluations": {json.dumps(evaluations)}}}'
    return Response(body, media_type="application/json")
