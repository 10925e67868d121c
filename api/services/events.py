"""What happens to jobs."""

from collections.abc import Mapping, Sequence

from api.schemas.events import EventPage, event_out
from api.schemas.jobs import Queue, queue
from api.services.jobs import without_others
from api.services.moment import one_moment
from contract.status import JobStatus
from store import scheduler
from store.access.principal import Principal
from store.jobs import jobs, progress
from store.jobs.progress import Cursor, News
from store.scheduling.planner import Wait
from store.session import Sessions


def check_job(sessions: Sessions, who: Principal, job_id: str) -> str:
    """Its id. Raises JobNotFound."""
    with sessions.begin() as session:
        return jobs.get(session, job_id, who.scope).id


def page(sessions: Sessions, who: Principal, job_id: str, cursor: Cursor, limit: int) -> EventPage:
    """The first `limit` events after `cursor`. Raises JobNotFound."""
    with sessions.begin() as session:
        jobs.get(session, job_id, who.scope)
        found = progress.events_since(session, job_id, cursor, limit + 1)
    return EventPage(data=[event_out(happening) for happening in found[:limit]], has_more=len(found) > limit)


def news(sessions: Sessions, cursors: Mapping[str, Cursor], limit: int) -> dict[str, News]:
    """Of each job that is there, the first `limit` happenings after its cursor."""
    with sessions.begin() as session:
        return progress.news(session, cursors, limit)


def queues_of(sessions: Sessions, job_ids: Sequence[str]) -> dict[str, Queue]:
    """Of those that wait, each in words that its owner may read."""
    with one_moment(sessions) as session:
        found = [job for job in jobs.of_ids(session, job_ids) if job.status is JobStatus.QUEUED]
        waits = scheduler.outlook(session, found) if found else {}
        told: dict[str, Wait] = {}
        for owner in {job.owner for job in found}:
            own = {job.id: waits[job.id] for job in found if job.owner == owner}
            told |= without_others(session, own, owner)
    return {job_id: queue(wait) for job_id, wait in told.items()}
