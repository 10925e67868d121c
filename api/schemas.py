"""What the API answers."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel

from contract.failure import Failure
from contract.machine import Holder, Machine
from contract.receipt import Receipt
from contract.status import JobStatus, Wish
from store.models import Artifact, Device, Job, Lease, Worker
from store.plan import Device as Place
from store.plan import Wait
from store.progress import Latest

_HOLDERS_NAMED = 3  # the others are counted


class Progress(BaseModel):
    """As of the last optimizer step."""

    step: int
    total_steps: int | None
    epoch: float
    loss: float
    eval_loss: float | None
    """Of the last evaluation."""
    best_step: int | None
    """Of the lowest eval_loss, 0 for the base model; told when the run has ended."""
    stopped_early: bool
    tokens_per_second: float
    progress: float
    eta_seconds: float


class FailureOut(BaseModel):
    reason: str
    message: str
    param: str | None
    retry_can_help: bool
    log_tail: str | None


class Queue(BaseModel):
    """Of a job that waits."""

    place: int
    """1 is the next one."""
    why: str
    """For people: what it waits for."""
    starts_at: datetime | None
    """Expected; null where nobody knows."""


class DeviceOfJob(BaseModel):
    worker: str
    number: int


class JobOut(BaseModel):
    id: str
    name: str | None
    owner: str
    status: JobStatus
    wish: Wish | None
    """What is asked of it while it runs. "kill" is a cancel without time to save; "step_aside" makes room for another
    job."""
    priority: int
    queue: Queue | None
    """Null where it does not wait."""
    devices: list[DeviceOfJob]
    """That it has, until every process of it is gone from there."""
    attempt: int
    retries: int
    """Failures of the infrastructure in a row, without coming further."""
    not_before: datetime | None
    """It waits until then, after such a failure."""
    batch: dict[str, Any] | None
    """In the place of the recipe's, which did not fit into the device's memory."""
    worker: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    recipe: dict[str, Any]
    command: str | None
    """That the latest attempt was started with, for a shell on the worker's machine."""
    progress: Progress | None
    failure: FailureOut | None
    receipt: Receipt | None
    """How the latest attempt's processes ended: when they were asked to and when all were gone, which they were and
    whether they had to be killed, and the bytes in use on each GPU before and after."""


class JobPage(BaseModel):
    data: list[JobOut]
    has_more: bool


class Evaluations(BaseModel):
    step: list[int]
    eval_loss: list[float]


class Metrics(BaseModel):
    job_id: str
    columns: dict[str, list[float | bool | None]]
    """One list per column, all of one length, by step."""
    evaluations: Evaluations


class ArtifactOut(BaseModel):
    name: str
    kind: str
    step: int | None
    bytes: int
    """On the server; the archive is smaller."""
    eval_loss: float | None
    """Of the evaluation at its step, where there was one."""
    best: bool
    """The adapter or checkpoint with the lowest eval_loss, which best.tar.gz stands for."""
    created_at: datetime


class ArtifactList(BaseModel):
    data: list[ArtifactOut]


class Sample(BaseModel):
    step: int
    index: int
    """Of the prompt, from 0: the same ones at every evaluation."""
    prompt: str
    expected: str
    generated: str


class SampleList(BaseModel):
    data: list[Sample]


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


class Health(BaseModel):
    status: str


def job_out(job: Job, latest: Latest | None, wait: Wait | None, devices: Sequence[Place]) -> JobOut:
    return JobOut(
        id=job.id,
        name=job.name,
        status=job.status,
        owner=job.owner,
        wish=job.wish,
        priority=job.priority,
        queue=queue(wait) if wait else None,
        devices=[DeviceOfJob(worker=device.worker, number=device.number) for device in devices],
        attempt=job.attempt,
        retries=job.retries,
        not_before=job.not_before,
        batch=job.batch,
        worker=job.worker,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        recipe=job.recipe,
        command=job.command,
        progress=_progress(job, latest) if latest else None,
        failure=_failure(job),
        receipt=Receipt.model_validate(job.receipt) if job.receipt else None,
    )


def queue(wait: Wait) -> Queue:
    starts_at = None if wait.starts is None else datetime.fromtimestamp(wait.starts, UTC)
    return Queue(place=wait.place, why=wait.why, starts_at=starts_at)


def _progress(job: Job, latest: Latest) -> Progress:
    metric = latest.metric
    return Progress(
        step=metric.step,
        total_steps=job.total_steps,
        epoch=metric.epoch,
        loss=metric.loss,
        eval_loss=latest.eval_loss,
        best_step=latest.done.get("best_step"),
        stopped_early=latest.done.get("stopped_early", False),
        tokens_per_second=metric.tokens_per_second,
        progress=metric.progress,
        eta_seconds=metric.eta_seconds,
    )


def _failure(job: Job) -> FailureOut | None:
    if job.failure is None:
        return None
    failure = Failure.model_validate(job.failure)
    return FailureOut(
        reason=failure.reason,
        message=failure.message,
        param=failure.param,
        retry_can_help=failure.reason.retry_can_help,
        log_tail=job.log_tail,
    )


def artifact_out(artifact: Artifact, best: bool) -> ArtifactOut:
    return ArtifactOut(
        name=artifact.name,
        kind=artifact.kind,
        step=artifact.step,
        bytes=artifact.bytes,
        eval_loss=artifact.eval_loss,
        best=best,
        created_at=artifact.created_at,
    )


def worker_out(worker: Worker, alive: bool, devices: Sequence[Device], leases: Sequence[Lease]) -> WorkerOut:
    """`devices` and `leases` of all workers."""
    machine = Machine.model_validate(worker.machine)
    return WorkerOut(
        name=worker.name,
        address=worker.address,
        status="lost" if not alive else "draining" if worker.draining else "ready",
        seen_at=worker.seen_at,
        machine=MachineOut(cores=machine.cores, cpu_bf16=machine.cpu_bf16),
        devices=[_device_out(device, machine, leases) for device in devices if device.worker == worker.name],
    )


def _device_out(device: Device, machine: Machine, leases: Sequence[Lease]) -> DeviceOut:
    gpu = machine.gpus[device.number] if machine.gpus else None
    jobs = [lease.job_id for lease in leases if (lease.worker, lease.number) == (device.worker, device.number)]
    holders = [Holder.model_validate(holder) for holder in device.holders or ()]
    return DeviceOut(
        number=device.number,
        name=gpu.name if gpu else "CPU slot",
        uuid=gpu.uuid if gpu else None,
        memory_bytes=gpu.memory_bytes if gpu else None,
        status="leased" if jobs else "held" if holders else "free",
        jobs=jobs,
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
