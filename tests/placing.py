"""Runs jobs as far as the store is concerned: a worker with room, and its claims."""

from datetime import timedelta

from sqlalchemy.orm import Session

from contract.machine import Machine
from store import scheduler
from store.jobs import jobs
from store.jobs.attempts import Retries
from store.jobs.jobs import Part
from store.models import Job
from store.scheduling import workers

LEASE = timedelta(minutes=1)
RETRIES = Retries(most=2, first_wait=timedelta(0), longest_wait=timedelta(0))


def cpu(slots: int) -> Machine:
    return Machine(gpus=[], cores=slots, cpu_bf16=False, slots=slots)


def register(session: Session, name: str = "worker", slots: int = 1) -> None:
    workers.register(session, name, "first", "localhost", cpu(slots))


def begin(session: Session, lease: timedelta = LEASE) -> list[Part]:
    """What is given to the workers now, begun by each."""
    parts = [
        jobs.begin(session, given.job_id, given.attempt, name, 1, lease)
        for given in scheduler.schedule(session)
        for name in given.workers
    ]
    return [part for part in parts if part is not None]


def claim(session: Session, lease: timedelta = LEASE) -> Job | None:
    """The job whose turn it is, running on a worker that has room for one more; None where none waits."""
    register(session, slots=len(workers.leases(session)) + 1)
    parts = begin(session, lease)
    return jobs.lock(session, parts[0].job_id) if parts else None
