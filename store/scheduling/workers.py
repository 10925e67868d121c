"""The workers that are there, and what their machines have. A worker that is not heard of does not count."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.machine import ExternalProcess, Machine
from store.errors import Superseded
from store.models import Device, Lease, Worker

SILENCE = timedelta(seconds=10)
"""After which a worker gets no job, and loses those that it has."""

_KNOWN = timedelta(minutes=1)
"""For so long what its machine has counts as there, when a recipe is checked."""

_FORGOTTEN = timedelta(hours=1)
"""After which a worker is no longer listed, and no device of its is any job's."""


def register(session: Session, name: str, incarnation: str, address: str, machine: Machine) -> None:
    """A worker is there, from now on in the place of an earlier one of that name."""
    row = {
        "name": name,
        "incarnation": incarnation,
        "address": address,
        "machine": machine.model_dump(mode="json"),
        "draining": False,
        "seen_at": func.now(),
    }
    session.execute(insert(Worker).values(row).on_conflict_do_update(index_elements=["name"], set_=row))
    session.execute(delete(Device).where(Device.worker == name, Device.number >= machine.devices))
    # Given to the earlier one, perhaps with devices that are no longer there.
    session.execute(delete(Lease).where(Lease.worker == name, Lease.begun_at.is_(None)))
    devices = [{"worker": name, "number": number} for number in range(machine.devices)]
    session.execute(insert(Device).values(devices).on_conflict_do_nothing())


def beat(
    session: Session,
    name: str,
    incarnation: str,
    external_processes: Mapping[int, Sequence[ExternalProcess]],
    draining: bool,
) -> bool:
    """Tells that a worker is still there, and which of its devices others hold; forgets those that have long fallen
    silent. False where it has been forgotten itself. Raises Superseded."""
    mine = update(Worker).where(Worker.name == name, Worker.incarnation == incarnation)
    if session.scalar(mine.values(seen_at=func.now(), draining=draining).returning(Worker.name)) is None:
        if session.get(Worker, name) is None:
            return False
        raise Superseded(name)
    for device in session.scalars(select(Device).where(Device.worker == name)):
        told = [holder.model_dump(mode="json") for holder in external_processes.get(device.number, ())] or None
        if device.external_processes != told:
            device.external_processes = told
    # Not those that come back just now: when the database was away all have been silent, and would block each other.
    gone = select(Worker.name).where(Worker.seen_at < func.now() - _FORGOTTEN).with_for_update(skip_locked=True)
    session.execute(delete(Worker).where(Worker.name.in_(gone)))
    return True


def leave(session: Session, name: str, incarnation: str) -> None:
    """A worker has ended as it should. Where it still has devices leased it stays, for the next one to clear them."""
    leased = select(Lease.job_id).where(Lease.worker == name).exists()
    session.execute(delete(Worker).where(Worker.name == name, Worker.incarnation == incarnation, ~leased))


def machines(session: Session) -> list[Machine]:
    """One for each worker that is there, or has just been."""
    known = select(Worker.machine).where(Worker.seen_at >= func.now() - _KNOWN).order_by(Worker.name)
    return [Machine.model_validate(machine) for machine in session.scalars(known)]


def heard(session: Session, longer: timedelta = timedelta(0)) -> set[str]:
    """The names of those that are heard of, or have been silent for no more than `longer` besides."""
    return set(session.scalars(select(Worker.name).where(Worker.seen_at >= func.now() - SILENCE - longer)))


def draining(session: Session) -> set[str]:
    return set(session.scalars(select(Worker.name).where(Worker.draining)))


def known(session: Session) -> list[tuple[Worker, bool]]:
    """All that are known, by name, and whether each is heard of."""
    heard = Worker.seen_at >= func.now() - SILENCE
    return [(worker, alive) for worker, alive in session.execute(select(Worker, heard).order_by(Worker.name))]


def devices(session: Session) -> list[Device]:
    return list(session.scalars(select(Device).order_by(Device.worker, Device.number)))


def leases(session: Session) -> list[Lease]:
    return list(session.scalars(select(Lease).order_by(Lease.worker, Lease.number, Lease.placed_at)))
