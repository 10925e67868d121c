"""Jobs in the database: made, claimed, read."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from contract.events import Event
from contract.machine import Machine
from contract.recipe import Recipe
from contract.status import RequestedAction
from store.jobs import jobs, progress, transitions
from store.jobs.attempts import Retries
from store.jobs.progress import Cursor
from store.jobs.transitions import AttemptPart
from store.models import Job
from store.scheduling import scheduler, workers
from store.session import Sessions

LEASE = timedelta(minutes=1)
RETRIES = Retries(most=2, first_wait=timedelta(0), longest_wait=timedelta(0))
RECIPE = {"model": "tiny", "dataset": "rows.jsonl"}
"""The least that a user may post."""


def make_recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({**RECIPE, **fields})


def create_job(sessions: Sessions, owner: str = "default", **fields: Any) -> str:
    """The id of a queued job; `fields` are the recipe's."""
    with sessions.begin() as session:
        return jobs.create(session, make_recipe(**fields), owner).id


def get_job(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        return jobs.get(session, job_id)


def events_of_type(sessions: Sessions, job_id: str, event_type: str) -> list[dict[str, Any]]:
    with sessions.begin() as session:
        events = progress.events_since(session, job_id, Cursor(), limit=1000)
    return [event.data for event in events if event.type == event_type]


def record_events(sessions: Sessions, job_id: str, *events: Event, attempt: int = 1) -> RequestedAction | None:
    """As the worker does that follows the attempt."""
    with sessions.begin() as session:
        return progress.record(session, job_id, attempt, events, LEASE)


def cpu(slots: int) -> Machine:
    return Machine(gpus=[], cores=slots, cpu_bf16=False, slots=slots)


def register(session: Session, name: str = "worker", slots: int = 1) -> None:
    workers.register(session, name, "first", "localhost", cpu(slots))


def begin(session: Session, lease: timedelta = LEASE) -> list[AttemptPart]:
    """Schedules all that can start now; each worker begins its part."""
    parts = [
        transitions.begin(session, given.job_id, given.attempt, name, 1, lease)
        for given in scheduler.schedule(session)
        for name in given.workers
    ]
    return [part for part in parts if part is not None]


def claim(session: Session, lease: timedelta = LEASE) -> Job | None:
    """The next job, running on a worker that has room for one more; None where no job waits."""
    register(session, slots=len(workers.list_leases(session)) + 1)
    parts = begin(session, lease)
    return jobs.lock(session, parts[0].job_id) if parts else None
