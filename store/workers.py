"""The workers that are there, and what their machines have. A worker that is not heard of does not count."""

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.machine import Machine
from store.models import Worker

SILENCE = timedelta(minutes=1)


def beat(session: Session, name: str, machine: Machine) -> None:
    """Tells that a worker is there; forgets those that have fallen silent."""
    row = {"name": name, "machine": machine.model_dump(mode="json"), "seen_at": func.now()}
    session.execute(insert(Worker).values(row).on_conflict_do_update(index_elements=["name"], set_=row))
    # Not those that come back just now: when the database was away all have been silent, and would block each other.
    silent = select(Worker.name).where(Worker.seen_at < func.now() - SILENCE).with_for_update(skip_locked=True)
    session.execute(delete(Worker).where(Worker.name.in_(silent)))


def machines(session: Session) -> list[Machine]:
    """One for each worker that is there."""
    alive = select(Worker.machine).where(Worker.seen_at >= func.now() - SILENCE).order_by(Worker.name)
    return [Machine.model_validate(machine) for machine in session.scalars(alive)]
