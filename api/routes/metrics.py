from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Db
from api.schemas import Evaluations, Metrics
from store import jobs, progress

router = APIRouter(tags=["metrics"])


@router.get("/jobs/{job_id}/metrics")
def metrics(
    db: Db,
    job_id: str,
    since_step: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    downsample: Annotated[int | None, Query(ge=2, le=10_000)] = None,
) -> Metrics:
    """The metrics after `since_step` as columns fit to plot; `downsample` thins them to about so many points."""
    with db.begin() as session:
        jobs.get(session, job_id)
        columns = progress.metric_columns(session, job_id, since_step, limit, downsample)
        evaluations = progress.evaluation_columns(session, job_id)
    return Metrics(job_id=job_id, columns=columns, evaluations=Evaluations(**evaluations))
