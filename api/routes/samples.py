from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import LARGEST_INTEGER, Db, JobId
from api.schemas.metrics import SampleList
from api.services import metrics as service
from api.who import Who

router = APIRouter(tags=["samples"])


@router.get("/jobs/{job_id}/samples")
def list_samples(
    db: Db, who: Who, job_id: JobId, step: Annotated[int | None, Query(ge=0, le=LARGEST_INTEGER)] = None
) -> SampleList:
    """What the model answered at the evaluation at `step`; without it, at the latest one."""
    return service.samples(db, who, job_id, step)
