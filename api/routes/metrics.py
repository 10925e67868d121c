from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from api.deps import LARGEST_INTEGER, Db, JobId
from api.schemas.metrics import Metrics
from api.services import metrics as service
from api.who import Who

router = APIRouter(tags=["metrics"])


@router.get("/jobs/{job_id}/metrics", response_class=Response, responses={200: {"model": Metrics}})
def get_metrics(
    db: Db,
    who: Who,
    job_id: JobId,
    since_step: Annotated[int, Query(ge=0, le=LARGEST_INTEGER)] = 0,
    limit: Annotated[int, Query(ge=1, le=100_000)] = 10_000,
    downsample: Annotated[int | None, Query(ge=2, le=10_000)] = None,
) -> Response:
    """The metrics after `since_step` as columns fit to plot; `downsample` thins them to about so many points."""
    body = service.metrics(db, who, job_id, since_step, limit, downsample)
    return Response(body, media_type="application/json")
