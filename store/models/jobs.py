"""Jobs, and what they tell and leave."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from contract.status import TERMINAL, JobStatus, RequestedAction
from store.models.base import Base, Word, one_of

SHAPE = " || ' ' || ".join(
    f"coalesce(recipe #>> '{{{field}}}', '')" for field in ("resources", "precision", "parallel,engine")
)
"""The fields that contract.machine reads."""


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"status IN ({one_of(JobStatus)})", name="status"),
        CheckConstraint(f"requested_action IN ({one_of(RequestedAction)})", name="requested_action"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint(f"(status IN ({one_of(TERMINAL)})) = (finished_at IS NOT NULL)", name="finished"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
        Index("ix_jobs_newest", text("created_at DESC"), text("id DESC")),
        Index(
            "ix_jobs_queued",
            *("owner", "shape", text("priority DESC"), "created_at"),
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_jobs_owner_newest", "owner", text("created_at DESC"), text("id DESC")),
        Index("ix_jobs_tags", "tags", postgresql_using="gin"),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner: Mapped[str]
    """Whose it is: owners share the devices fairly."""
    recipe: Mapped[dict[str, Any]]
    shape: Mapped[str] = mapped_column(Computed(SHAPE, persisted=True))
    """What of the recipe says on which devices it fits: all jobs of one shape fit on the same, or on none."""
    priority: Mapped[int]
    """As the recipe's, to be sorted by."""
    examples: Mapped[int | None]
    """That it will train on, each as often as it comes; None where nobody has counted."""
    expected_seconds: Mapped[float | None]
    """Of training, as jobs like it took; None where there were none."""
    status: Mapped[JobStatus] = mapped_column(Word(JobStatus))
    """Written by the one statement of store.jobs.jobs.move and store.jobs.jobs.begin."""
    requested_action: Mapped[RequestedAction | None] = mapped_column(Word(RequestedAction))
    """What is asked of a running job; its worker reads it."""
    attempt: Mapped[int]
    """Counts the claims. Whatever a worker writes is guarded by the attempt that it claimed."""
    retries: Mapped[int]
    """Failures of the infrastructure since it last came further than where it had failed before."""
    failed_step: Mapped[int | None]
    """How far it had come at the furthest of them."""
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
    exit_report: Mapped[dict[str, Any] | None]
    """How the latest attempt's processes ended: a contract.exit_report.ExitReport."""
    training_file: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    """The dataset that it trains on, where it was uploaded: it cannot be deleted before the job has ended."""
    validation_file: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    asked: Mapped[dict[str, Any] | None]
    """What OpenAI's wire asked for, as it is to be told again; None where it was not asked by that."""
    tags: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The owner's own words by name, which lists can be filtered by. OpenAI's wire calls them metadata."""
    model_deleted_at: Mapped[datetime | None]
    """When its owner deleted what it made."""
    results_bytes: Mapped[int | None] = mapped_column(BigInteger)
    """Of the file of results that store.files makes; None before it succeeds, and where it did before they were
    counted."""
    results_deleted_at: Mapped[datetime | None]
    """When its owner deleted that file."""
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
    """Something that can be downloaded, once it is published."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_unpublished", "job_id", postgresql_where=text("published_at IS NULL")),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """adapter, checkpoint, merged, log, metrics, curve or card"""
    step: Mapped[int | None]
    path: Mapped[str]
    """A folder or file, relative to the runs folder."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    """That a download gives; until it is published, of its files."""
    eval_loss: Mapped[float | None]
    """Of the evaluation at its step, where there was one."""
    files: Mapped[list[Any] | None]
    """Name, bytes and SHA-256 of each file in it; None until it is published."""
    sha256: Mapped[str | None]
    """Of the bytes that a download gives; None until it is published."""
    crc32: Mapped[int | None] = mapped_column(BigInteger)
    """With which its archive ends; None for a single file."""
    published_at: Mapped[datetime | None]
    """When it was whole in the storage."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
