"""Workers, their devices, and the leases on these."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Worker(Base):
    """A worker and the hardware of its machine."""

    __tablename__ = "workers"
    __table_args__ = (CheckConstraint("inference IN ('kept', 'off', 'preemptible')", name="inference"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    instance_id: Mapped[str]
    """A new one at each start."""
    address: Mapped[str]
    """Address at which other machines reach it."""
    machine: Mapped[dict[str, Any]]
    """A contract.machine.Machine."""
    draining: Mapped[bool]
    """Whether it is about to stop and takes no job."""
    disk: Mapped[dict[str, Any] | None]
    """A contract.machine.Disk; None before it was measured."""
    low_disk: Mapped[bool] = mapped_column(server_default=false())
    """Whether too little of it is free, so that no attempt starts there."""
    inference: Mapped[str] = mapped_column(server_default="preemptible")
    """Whether it runs inference servers, and gives their devices to waiting jobs: preemptible, kept or off."""
    inference_shares: Mapped[bool] = mapped_column(server_default=true())
    """Whether its inference servers leave memory to a job that shares their device."""
    seen_at: Mapped[datetime]
    """Time of the last heartbeat, by the database's clock."""


class Device(Base):
    """A GPU of a worker's machine, or a CPU slot."""

    __tablename__ = "devices"

    worker: Mapped[str] = mapped_column(ForeignKey("workers.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    external_processes: Mapped[list[Any] | None]
    """Processes of other programs that use it, as contract.machine.ExternalProcess; None without any."""


class Lease(Base):
    """A device given to an attempt until none of the attempt's processes is left on its machine."""

    __tablename__ = "leases"
    __table_args__ = (
        ForeignKeyConstraint(["worker", "number"], ["devices.worker", "devices.number"], ondelete="CASCADE"),
        Index("uq_leases_device", "worker", "number", unique=True, postgresql_where=text("NOT shared")),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    worker: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[int]
    """Rank of the machine in the attempt: rank 0 holds the job's lease and writes for it, the others only train."""
    shared: Mapped[bool]
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    begun_at: Mapped[datetime | None]
    """When a process of the worker claimed it."""
    pid: Mapped[int | None]
    """That process's id."""


class MemoryReading(Base):
    """Memory in use at one time. It outlives its worker, which is deleted when it stops."""

    __tablename__ = "memory_readings"

    worker: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.now())
    device: Mapped[int] = mapped_column(primary_key=True)
    """Number of the GPU; -1 for the memory of the machine itself."""
    used_bytes: Mapped[int] = mapped_column(BigInteger)
    jobs: Mapped[list[str]] = mapped_column(ARRAY(Text))
    """Jobs that held the device then, by id; those of all devices for the machine itself."""
