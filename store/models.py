"""The tables."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from contract.status import TERMINAL, JobStatus, Wish


def _one_of(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in sorted(words))


class Word(TypeDecorator[Any]):
    """A StrEnum kept as text: a new member needs a new CHECK, not a new type."""

    impl = Text
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self._words = words

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self._words(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    # JSON, not JSONB: it keeps the order in which people wrote the fields.
    type_annotation_map: ClassVar = {
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({_one_of(JobStatus)})", name="status"),
        CheckConstraint(f"wish IN ({_one_of(Wish)})", name="wish"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint(f"(status IN ({_one_of(TERMINAL)})) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
        Index("ix_jobs_newest", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_jobs_queued", "owner", text("priority DESC"), "created_at", postgresql_where=text("status = 'queued'")
        ),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner: Mapped[str]
    """Whose it is: owners share the devices fairly."""
    recipe: Mapped[dict[str, Any]]
    priority: Mapped[int]
    """As the recipe's, to be sorted by."""
    examples: Mapped[int | None]
    """That it will train on, each as often as it comes; None where nobody has counted."""
    expected_seconds: Mapped[float | None]
    """Of training, as jobs like it took; None where there were none."""
    status: Mapped[JobStatus] = mapped_column(Word(JobStatus))
    """Written by store.jobs.move alone."""
    wish: Mapped[Wish | None] = mapped_column(Word(Wish))
    """What is asked of a running job; its worker reads it."""
    attempt: Mapped[int]
    """Counts the claims. Whatever a worker writes is guarded by the attempt that it claimed."""
    retries: Mapped[int]
    """Failures of the infrastructure since it last came further than where it had failed before."""
    failed_step: Mapped[int | None]
    """How far it had come at the last of them."""
    not_before: Mapped[datetime | None]
    """It waits until then, after a failure."""
    batch: Mapped[dict[str, Any] | None]
    """A contract.recipe.Batch in the place of the recipe's, which did not fit into the device's memory."""
    worker: Mapped[str | None]
    """Of the latest attempt; of several machines the one that holds the lease."""
    lease_expires_at: Mapped[datetime | None]
    """On the database's clock."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    """Of the latest attempt."""
    finished_at: Mapped[datetime | None]
    total_steps: Mapped[int | None]
    failure: Mapped[dict[str, Any] | None]
    """A contract.failure.Failure."""
    log_tail: Mapped[str | None]
    command: Mapped[str | None]
    """That the latest attempt was started with, quoted for a shell."""
    rendezvous: Mapped[str | None]
    """HOST:PORT at which the machines of the latest attempt meet; None before it is known, empty when they part."""
    receipt: Mapped[dict[str, Any] | None]
    """How the latest attempt's processes ended: a contract.receipt.Receipt."""
    event_count: Mapped[int]
    """The last event's seq. Taking the next ones locks the row, so that events become visible in their order."""


class Event(Base):
    """All that happened to a job, but for its metrics: they are many, and are read by column."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float]
    """Seconds since the epoch."""
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class Metric(Base):
    """One optimizer step, as contract.events.Metric tells it."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float]
    epoch: Mapped[float]
    loss: Mapped[float]
    learning_rate: Mapped[float]
    grad_norm: Mapped[float | None]
    loss_scale: Mapped[float | None]
    overflow: Mapped[bool]
    skipped_steps: Mapped[int]
    tokens: Mapped[int]
    supervised_tokens: Mapped[int]
    tokens_per_second: Mapped[float]
    memory_bytes: Mapped[int] = mapped_column(BigInteger)
    progress: Mapped[float]
    eta_seconds: Mapped[float]


class Artifact(Base):
    """Something that can be downloaded."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """adapter, checkpoint or log"""
    step: Mapped[int | None]
    path: Mapped[str]
    """A folder or file, relative to the runs folder."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    eval_loss: Mapped[float | None]
    """Of the evaluation at its step, where there was one."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


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
    holders: Mapped[list[Any] | None]
    """Processes that are not ours and hold it, as contract.machine.Holder; None where there are none."""


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
