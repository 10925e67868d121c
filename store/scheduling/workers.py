"""The workers and the hardware of their machines. A worker without a recent heartbeat does not count."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Exists, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from contract.machine import Disk, ExternalProcess, Machine
from store.errors import WorkerSuperseded
from store.models import Device, InferenceServer, Lease, Worker

SILENCE = timedelta(seconds=10)
"""Time without a heartbeat after which a worker gets no job and loses those that it has."""

_KNOWN = timedelta(minutes=1)
"""Time without a heartbeat during which its machine still counts when a recipe is checked."""

_FORGOTTEN = timedelta(hours=1)
"""Time without a heartbeat after which a worker is deleted with its devices and their leases."""


def register(  # parameters: the columns of a row
    session: Session,
    name: str,
    instance_id: str,
    address: str,
    machine: Machine,
    inference: str = "preemptible",
    inference_shares: bool = True,
) -> None:
    """Adds a worker, which replaces an earlier one of the same name."""
    row = {
        "name": name,
        "instance_id": instance_id,
        "address": address,
        "machine": machine.model_dump(mode="json"),
        "inference": inference,
        "inference_shares": inference_shares,
        "draining": False,
        "seen_at": func.now(),
    }
    session.execute(insert(Worker).values(row).on_conflict_do_update(index_elements=["name"], set_=row))
    session.execute(delete(Device).where(Device.worker == name, Device.number >= machine.devices))
    # These were given to the earlier one, perhaps on devices that no longer exist.
    session.execute(delete(Lease).where(Lease.worker == name, Lease.begun_at.is_(None)))
    devices = [{"worker": name, "number": number} for number in range(machine.devices)]
    session.execute(insert(Device).values(devices).on_conflict_do_nothing())


def heartbeat(
    session: Session,
    name: str,
    instance_id: str,
    external_processes: Mapping[int, Sequence[ExternalProcess]],
    draining: bool,
) -> bool:
    """Records that a worker is alive and which programs use its devices, and deletes workers that have long been
    silent. No device of a machine whose GPUs cannot be used becomes free. False where this worker was deleted itself.
    Raises WorkerSuperseded."""
    mine = update(Worker).where(Worker.name == name, Worker.instance_id == instance_id)
    recorded = session.scalar(mine.values(seen_at=func.now(), draining=draining).returning(Worker.machine))
    if recorded is None:
        if session.get(Worker, name) is None:
            return False
        raise WorkerSuperseded(name)
    machine = Machine.model_validate(recorded)
    if machine.unusable is not None:
        external_processes = machine.unusable_devices(machine.unusable)
    _record_use(session, name, external_processes)
    # Skips locked rows: after an outage of the database all workers were silent, and would block each other.
    gone = select(Worker.name).where(Worker.seen_at < func.now() - _FORGOTTEN).with_for_update(skip_locked=True)
    session.execute(delete(Worker).where(Worker.name.in_(gone)))
    return True


def _record_use(session: Session, name: str, external_processes: Mapping[int, Sequence[ExternalProcess]]) -> None:
    for device in session.scalars(select(Device).where(Device.worker == name)):
        found = [process.model_dump(mode="json") for process in external_processes.get(device.number, ())] or None
        if device.external_processes != found:
            device.external_processes = found


def mark_unusable(session: Session, name: str, reason: str) -> None:
    """Keeps jobs off a machine whose GPUs have failed a trainer, until its worker starts again."""
    worker = session.get_one(Worker, name, with_for_update=True)
    machine = Machine.model_validate(worker.machine).model_copy(update={"unusable": reason})
    worker.machine = machine.model_dump(mode="json")
    _record_use(session, name, machine.unusable_devices(reason))


def record_disk(session: Session, name: str, instance_id: str, disk: Disk) -> None:
    """Records the free space of a worker's disk. No attempt starts on one that is low."""
    mine = update(Worker).where(Worker.name == name, Worker.instance_id == instance_id)
    session.execute(mine.values(disk=disk.model_dump(mode="json"), low_disk=disk.low))


def unregister(session: Session, name: str, instance_id: str) -> None:
    """Removes a worker that has ended. One with leased devices stays, for its successor to free them."""
    leased = select(Lease.job_id).where(Lease.worker == name).exists()
    serves = select(InferenceServer.id).where(InferenceServer.worker == name).exists()
    session.execute(delete(Worker).where(Worker.name == name, Worker.instance_id == instance_id, ~leased, ~serves))


def list_machines(session: Session | Connection) -> list[Machine]:
    """The machines of the workers that are alive, or were a moment ago."""
    return [Machine.model_validate(machine) for machine in session.scalars(_MACHINES)]


_MACHINES = select(Worker.machine).where(Worker.seen_at >= func.now() - _KNOWN).order_by(Worker.name)
"""Made once: to put it together takes longer than to run it."""


def heard_lately(longer: timedelta = timedelta(0)) -> ColumnElement[bool]:
    """Whether a worker had a heartbeat within SILENCE, or within `longer` more."""
    return Worker.seen_at >= func.now() - SILENCE - longer


def was_heard(session: Session, name: str, within: timedelta) -> bool:
    """Whether the worker of that name had a heartbeat within that time."""
    heard = select(Worker.name).where(Worker.name == name, Worker.seen_at >= func.now() - within)
    return session.scalar(heard) is not None


def any_takes_jobs(session: Session, within: timedelta) -> bool:
    """Whether a worker that is alive and not draining had a heartbeat within that time."""
    ready = (heard_lately(), Worker.seen_at >= func.now() - within, ~Worker.draining)
    return session.scalar(select(Worker.name).where(*ready).limit(1)) is not None


def alive(name: InstrumentedAttribute[Any]) -> Exists:
    """Whether the worker that a column names is alive."""
    return select(Worker.name).where(Worker.name == name, heard_lately()).exists()


def alive_names(session: Session, longer: timedelta = timedelta(0)) -> set[str]:
    """The names of the workers with a heartbeat within SILENCE, or within `longer` more."""
    return set(session.scalars(select(Worker.name).where(heard_lately(longer))))


def draining_names(session: Session) -> set[str]:
    return set(session.scalars(select(Worker.name).where(Worker.draining)))


def count_low_disks(session: Session) -> int:
    """The number of workers alive on which no attempt starts because their disk is low."""
    return session.scalar(select(func.count()).where(heard_lately(), Worker.low_disk)) or 0


def list_workers(session: Session) -> list[tuple[Worker, bool]]:
    """All workers by name, and whether each is alive."""
    return [(worker, heard) for worker, heard in session.execute(select(Worker, heard_lately()).order_by(Worker.name))]


def list_devices(session: Session) -> list[Device]:
    return list(session.scalars(select(Device).order_by(Device.worker, Device.number)))


def list_servers(session: Session) -> list[InferenceServer]:
    """The inference servers that have a device."""
    return list(session.scalars(select(InferenceServer).where(InferenceServer.worker.is_not(None))))


def list_leases(session: Session) -> list[Lease]:
    return list(session.scalars(select(Lease).order_by(Lease.worker, Lease.number, Lease.placed_at)))
