from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from contract.machine import Holder, Machine
from store.models import Device, Lease, Worker

_HOLDERS_NAMED = 3  # the others are counted


class DeviceOut(BaseModel):
    number: int
    name: str
    """Of the GPU, or "CPU slot"."""
    uuid: str | None
    memory_bytes: int | None
    status: Literal["free", "leased", "held"]
    """"held": by processes that are no job's; it is not given out."""
    jobs: list[str]
    """That have it; several where all of them allow it."""
    others: int
    """Jobs of other owners that have it, which have no name here."""
    why: str | None
    """For people: who holds it."""


class MachineOut(BaseModel):
    cores: int
    cpu_bf16: bool
    """The CPU computes in bfloat16."""


class WorkerOut(BaseModel):
    name: str
    address: str
    """By which the other machines reach it."""
    status: Literal["ready", "draining", "lost"]
    """"draining": it is about to stop, and takes no job. "lost": it is not heard of."""
    seen_at: datetime
    machine: MachineOut
    devices: list[DeviceOut]


class WorkerList(BaseModel):
    data: list[WorkerOut]


def worker_out(
    worker: Worker, alive: bool, devices: Sequence[Device], leases: Sequence[Lease], own: Collection[str]
) -> WorkerOut:
    """`devices` and `leases` of all workers; `own` are the jobs that may be named."""
    machine = Machine.model_validate(worker.machine)
    return WorkerOut(
        name=worker.name,
        address=worker.address,
        status="lost" if not alive else "draining" if worker.draining else "ready",
        seen_at=worker.seen_at,
        machine=MachineOut(cores=machine.cores, cpu_bf16=machine.cpu_bf16),
        devices=[_device_out(device, machine, leases, own) for device in devices if device.worker == worker.name],
    )


def _device_out(device: Device, machine: Machine, leases: Sequence[Lease], own: Collection[str]) -> DeviceOut:
    gpu = machine.gpus[device.number] if machine.gpus else None
    jobs = [lease.job_id for lease in leases if (lease.worker, lease.number) == (device.worker, device.number)]
    holders = [Holder.model_validate(holder) for holder in device.holders or ()]
    return DeviceOut(
        number=device.number,
        name=gpu.name if gpu else "CPU slot",
        uuid=gpu.uuid if gpu else None,
        memory_bytes=gpu.memory_bytes if gpu else None,
        status="leased" if jobs else "held" if holders else "free",
        jobs=[job for job in jobs if job in own],
        others=sum(job not in own for job in jobs),
        why=_held(holders) if holders else None,
    )


def _held(holders: Sequence[Holder]) -> str:
    if holders[0].pid is None and holders[0].memory_bytes is None:
        return holders[0].name  # no process, but a driver that does not answer
    named = ", ".join(_words(holder) for holder in holders[:_HOLDERS_NAMED])
    more = f" and {len(holders) - _HOLDERS_NAMED} more" if len(holders) > _HOLDERS_NAMED else ""
    return f"held by {named}{more}, which {'is' if len(holders) == 1 else 'are'} not a job's"


def _words(holder: Holder) -> str:
    pid = None if holder.pid is None else f"pid {holder.pid}"
    memory = None if holder.memory_bytes is None else f"{holder.memory_bytes / 2**30:.1f} GiB"
    known = ", ".join(each for each in (pid, memory) if each is not None)
    return f"{holder.name} ({known})" if known else holder.name
