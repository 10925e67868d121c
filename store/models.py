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
        Index("ix_jobs_queued", "created_at", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    recipe: Mapped[dict[str, Any]]
    status: Mapped[JobStatus] = mapped_column(Word(JobStatus))
    """Written by store.jobs.move alone."""
    wish: Mapped[Wish | None] = mapped_column(Word(Wish))
    """What the user asked of a running job; its worker reads it."""
    attempt: Mapped[int]
    """Counts the claims. Whatever a worker writes is guarded by the attempt that it claimed."""
    losses: Mapped[int]
    """Counts the workers that it has lost."""
    worker: Mapped[str | None]
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
    """Its host and process."""
    machine: Mapped[dict[str, Any]]
    """A contract.machine.Machine."""
    seen_at: Mapped[datetime]
    """When it was last heard of, on the database's clock."""
