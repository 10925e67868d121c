"""Numbers of the whole service for monitoring; none is of a single job or owner."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contract.status import JobStatus
from store.models import Artifact, Blob, Delivery, Device, Job, Lease, Worker
from store.scheduling import workers


@dataclass(frozen=True)
class Gauges:
    jobs: dict[str, int]
    """Number of jobs by status."""
    queue_seconds: float
    """Age of the oldest queued job; 0 without any."""
    devices: dict[str, int]
    """leased; busy with other programs; free; or lost with their worker."""
    workers: dict[str, int]
    """Number of workers that are ready, draining or lost."""
    deliveries: dict[str, int]
    """Number of deliveries to webhooks by status."""
    low_disks: int
    """Number of workers on which no attempt starts because their disk is low."""
    dataset_bytes: int
    artifact_bytes: int


def read(session: Session) -> Gauges:
    jobs = dict.fromkeys(JobStatus, 0) | dict(_counts(session, Job.status))
    oldest = select(func.extract("epoch", func.now() - func.min(Job.created_at))).where(Job.status == JobStatus.QUEUED)
    heard = workers.alive_names(session)
    return Gauges(
        jobs={status.value: count for status, count in jobs.items()},
        queue_seconds=float(session.scalar(oldest) or 0),
        devices=_devices(session, heard),
        workers=_workers(session, heard),
        deliveries={"pending": 0, "delivered": 0, "failed": 0} | dict(_counts(session, Delivery.status)),
        low_disks=workers.count_low_disks(session),
        dataset_bytes=int(session.scalar(select(func.sum(Blob.bytes))) or 0),
        artifact_bytes=int(session.scalar(select(func.sum(Artifact.bytes))) or 0),
    )


def _counts(session: Session, column: Any) -> list[tuple[Any, int]]:
    return [(value, count) for value, count in session.execute(select(column, func.count()).group_by(column))]


def _devices(session: Session, heard: set[str]) -> dict[str, int]:
    counts = {"free": 0, "leased": 0, "busy": 0, "lost": 0}
    leased = {(worker, number) for worker, number in session.execute(select(Lease.worker, Lease.number))}
    for device in session.scalars(select(Device)):
        if device.worker not in heard:
            state = "lost"
        elif (device.worker, device.number) in leased:
            state = "leased"
        else:
            state = "busy" if device.external_processes else "free"
        counts[state] += 1
    return counts


def _workers(session: Session, heard: set[str]) -> dict[str, int]:
    counts = {"ready": 0, "draining": 0, "lost": 0}
    for name, draining in session.execute(select(Worker.name, Worker.draining)):
        counts["lost" if name not in heard else "draining" if draining else "ready"] += 1
    return counts
