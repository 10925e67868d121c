"""The workers, and what runs on their devices."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth.who import Who
from api.context import Context
from contract.formatting import sentence, truncate
from contract.machine import Disk, ExternalProcess, Machine
from store.jobs import jobs
from store.models import Device, Lease, Worker
from store.scheduling import workers
from store.session import read_snapshot

_MOST_NAMED = 3  # the others are counted


class DeviceOut(BaseModel):
    number: int
    name: str
    """Name of the GPU, or "CPU slot", or the profile of a place in a cluster's queue, such as "profile a100"."""
    uuid: str | None
    memory_bytes: int | None
    status: Literal["free", "leased", "busy", "unavailable"]
    """"busy": other programs use it. "unavailable": its driver does not answer or is too old for the trainer, or a
    trainer could not use it. Jobs get neither."""
    jobs: list[str]
    """Jobs that hold the device; several if all of them allow sharing."""
    jobs_of_other_owners: int
    """Number of other owners' jobs on it, which are not named."""
    reason: str | None
    """A sentence that says which base model it answers with, what uses a busy device, or why it is unavailable."""


class MachineOut(BaseModel):
    cores: int
    cpu_bf16: bool
    """The CPU computes in bfloat16."""


class WorkerOut(BaseModel):
    name: str
    address: str
    """Address by which the other machines reach it."""
    status: Literal["ready", "draining", "lost"]
    """"draining": it is about to stop and takes no job. "lost": it sends no heartbeat."""
    seen_at: datetime
    disk: Disk | None
    """The disk of its home folder; null before it was measured. While it is low, no attempt starts on this worker."""
    machine: MachineOut
    devices: list[DeviceOut]


class WorkerList(BaseModel):
    data: list[WorkerOut]


router = APIRouter(tags=["workers"])


@router.get("/workers")
def list_workers(services: Context, who: Who) -> WorkerList:
    """The workers, and for each device what runs on it or why nothing may."""
    with read_snapshot(services.sessions) as session:
        devices, leases = workers.list_devices(session), workers.list_leases(session)
        serving = {(each.worker, each.number): each.base for each in workers.list_servers(session)}
        found = workers.list_workers(session)
        named = {lease.job_id for lease in leases}
        own = named if who.admin else jobs.owned(session, named, who.owner)
        return WorkerList(data=[worker_out(worker, alive, devices, leases, own, serving) for worker, alive in found])


def worker_out(  # parameters: rows of four tables
    worker: Worker,
    alive: bool,
    devices: Sequence[Device],
    leases: Sequence[Lease],
    own: Collection[str],
    serving: Mapping[tuple[str | None, int | None], str] = MappingProxyType({}),
) -> WorkerOut:
    """`devices` and `leases` of all workers; `own` are the jobs that may be named; `serving` are the base models of
    inference servers by their devices."""
    machine = Machine.model_validate(worker.machine)
    return WorkerOut(
        name=worker.name,
        address=worker.address,
        status="lost" if not alive else "draining" if worker.draining else "ready",
        seen_at=worker.seen_at,
        disk=Disk.model_validate(worker.disk) if worker.disk else None,
        machine=MachineOut(cores=machine.cores, cpu_bf16=machine.cpu_bf16),
        devices=[
            _device_out(device, machine, leases, own, serving.get((device.worker, device.number)))
            for device in devices
            if device.worker == worker.name
        ],
    )


def _device_out(
    device: Device, machine: Machine, leases: Sequence[Lease], own: Collection[str], served: str | None
) -> DeviceOut:
    gpu, offered = machine.gpus[device.number] if machine.gpus else None, machine.profile_of(device.number)
    jobs = [lease.job_id for lease in leases if (lease.worker, lease.number) == (device.worker, device.number)]
    others = [ExternalProcess.model_validate(process) for process in device.external_processes or ()]
    return DeviceOut(
        number=device.number,
        name=gpu.name if gpu else f"profile {offered.name}" if offered else "CPU slot",
        uuid=gpu.uuid if gpu else None,
        memory_bytes=gpu.memory_bytes if gpu else None,
        status="leased" if jobs or served else _unused_status(others),
        jobs=[job for job in jobs if job in own],
        jobs_of_other_owners=sum(job not in own for job in jobs),
        reason=_busy_reason(others) if others else _served_reason(served) if served else None,
    )


def _unused_status(others: Sequence[ExternalProcess]) -> Literal["free", "busy", "unavailable"]:
    if not others:
        return "free"
    return "unavailable" if _is_fault(others[0]) else "busy"


def _is_fault(process: ExternalProcess) -> bool:
    """Whether it is no process, but why the device cannot be used."""
    return process.pid is None and process.memory_bytes is None


def _busy_reason(processes: Sequence[ExternalProcess]) -> str:
    first = processes[0]
    if _is_fault(first):
        return sentence(first.name)
    named = ", ".join(map(_words, processes[:_MOST_NAMED]))
    more = f" and {len(processes) - _MOST_NAMED} more" if len(processes) > _MOST_NAMED else ""
    return f"It is used by {named}{more}, which {'is' if len(processes) == 1 else 'are'} not a job's."


def _served_reason(base: str) -> str:
    # A path is the server's own.
    name = base.rstrip("/").rpartition("/")[2] if base.startswith("/") else base
    return f"It answers with {truncate(name)}."


def _words(process: ExternalProcess) -> str:
    pid = None if process.pid is None else f"pid {process.pid}"
    memory = None if process.memory_bytes is None else f"{process.memory_bytes / 2**30:.1f} GiB"
    known = ", ".join(each for each in (pid, memory) if each is not None)
    return f"{process.name} ({known})" if known else process.name
