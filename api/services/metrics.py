"""Metrics and samples of a job."""

from api.schemas.metrics import SampleList
from store.access.principal import Principal
from store.errors import JobNotFound
from store.jobs import jobs, progress
from store.session import Sessions, one_read


def metrics(
    sessions: Sessions, who: Principal, job_id: str, since_step: int, limit: int, downsample: int | None
) -> str:
    """A schemas.Metrics as JSON. Raises JobNotFound."""
    with one_read(sessions) as connection:
        found = progress.curves(connection, job_id, who.scope, since_step, limit, downsample)
    if found is None:
        raise JobNotFound(job_id)
    return found


def samples(sessions: Sessions, who: Principal, job_id: str, step: int | None) -> SampleList:
    """Of the evaluation at `step`, else of the latest one. Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        return SampleList.model_validate({"data": progress.samples(session, job_id, step)})
