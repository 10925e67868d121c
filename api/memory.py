"""Memory of the workers' machines over the last day, and who held their devices."""

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context
from contract import patterns
from contract.machine import Machine
from store.errors import WorkerNotFound
from store.jobs import jobs
from store.models import Worker
from store.scheduling import memory
from store.session import read_snapshot


class DeviceLease(BaseModel):
    """Jobs that held the device without a change, from the first reading to the last."""

    start: float
    """Seconds since the epoch, as all times here."""
    end: float
    jobs: list[str]
    jobs_of_other_owners: int
    """Number of other owners' jobs and of deleted ones, which are not named."""


class DeviceMemory(BaseModel):
    device: int | None
    """Number of the GPU; null for the memory of the machine itself, in which its CPU slots train."""
    total_bytes: int | None
    time: list[float]
    used_bytes: list[int]
    leases: list[DeviceLease]


class WorkerMemory(BaseModel):
    worker: str
    data: list[DeviceMemory]
    """The machine itself, then its GPUs, as far as their driver reports it."""


router = APIRouter(tags=["workers"])

_Name = Annotated[str, Path(min_length=1, max_length=100, pattern=patterns.TEXT)]


@router.get("/workers/{worker}/memory")
def get_worker_memory(
    services: Context,
    who: Who,
    worker: _Name,
    after: Annotated[float, Query(ge=0, le=2**40)] = 0,
    points: Annotated[int, Query(ge=2, le=10_000)] = 200,
) -> WorkerMemory:
    """Readings of the last day, one every half minute; clients that poll get those `after` a time. Each device's are
    thinned to about `points` and keep their peaks: of each of half as many groups the least and the largest stay."""
    with read_snapshot(services.sessions) as session:
        found = session.get(Worker, worker)
        if found is None:
            raise WorkerNotFound(worker)
        readings = memory.read(session, worker, after, points)
        held = memory.holdings(session, worker, after)
        named = {job for each in held for job in each.jobs}
        own = named if who.admin else jobs.owned(session, named, who.owner)
        machine = Machine.model_validate(found.machine)
    devices = sorted({reading.device for reading in readings})
    return WorkerMemory(worker=worker, data=[_device(each, machine, readings, held, own) for each in devices])


def _device(
    device: int,
    machine: Machine,
    readings: list[memory.Reading],
    held: list[memory.Holding],
    own: Collection[str],
) -> DeviceMemory:
    mine = [reading for reading in readings if reading.device == device]
    return DeviceMemory(
        device=None if device == memory.MACHINE else device,
        total_bytes=_total(device, machine),
        time=[reading.time for reading in mine],
        used_bytes=[reading.used_bytes for reading in mine],
        leases=[
            DeviceLease(
                start=each.start,
                end=each.end,
                jobs=[job for job in each.jobs if job in own],
                jobs_of_other_owners=sum(job not in own for job in each.jobs),
            )
            for each in held
            if each.device == device
        ],
    )


def _total(device: int, machine: Machine) -> int | None:
    if device == memory.MACHINE:
        return machine.memory_bytes
    # The machine may have had more GPUs when this was read.
    return machine.gpus[device].memory_bytes if device < len(machine.gpus) else None
