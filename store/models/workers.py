"""Workers, their devices, and who has them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Worker(Base):
    """A worker, and what its machine has to train with."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    incarnation: Mapped[str]
    """Another at each start."""
    address: Mapped[str]
    """By which the other machines reach it."""
    machine: Mapped[dict[str, Any]]
    """A contract.machine.Machine."""
    draining: Mapped[bool]
    """It is about to stop, and takes no job."""
    seen_at: Mapped[datetime]
    """When it was last heard of, on the database's clock."""


class Device(Base):
    """What can be given to a job: a GPU of a worker's machine, or a CPU slot."""

    __tablename__ = "devices"

    worker: Mapped[str] = mapped_column(ForeignKey("workers.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    external_processes: Mapped[list[Any] | None]
    """Processes that are not ours and hold it, as contract.machine.ExternalProcess; None where there are none."""


class Lease(Base):
    """A device that is given to an attempt, until no process of that attempt is left on its machine."""

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
    """Of the machine in the attempt: 0 has the job's lease and writes for it, the others only train."""
    shared: Mapped[bool]
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    begun_at: Mapped[datetime | None]
    """When a process of the worker took it up."""
    pid: Mapped[int | None]
    """That process."""
