"""Jobs, their events, their metrics and their artifacts."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from contract.status import TERMINAL, JobStatus, RequestedAction
from store.models.base import Base, Word, one_of

SHAPE = " || ' ' || ".join(
    f"coalesce(recipe #>> '{{{field}}}', '')" for field in ("resources", "precision", "parallel,engine")
)
"""The fields of a recipe that contract.machine reads, as one text."""


TRANSACTION = "pg_current_xact_id()::text::bigint"


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
        Index("ix_jobs_unmeasured", "id", postgresql_where=text("measured_attempt < attempt")),
        Index("ix_jobs_changed", "changed"),
        Index("ix_jobs_sweep", "sweep_id", "created_at", postgresql_where=text("sweep_id IS NOT NULL")),
        Index("ix_jobs_start_from_job", "start_from_job", postgresql_where=text("start_from_job IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    owner: Mapped[str]
    """Owners share the devices fairly."""
    recipe: Mapped[dict[str, Any]]
    shape: Mapped[str] = mapped_column(Computed(SHAPE, persisted=True))
    """The part of the recipe that decides on which devices the job fits. All jobs of a shape fit on the same devices,
    so that the scheduler looks at a few of each shape instead of at 10,000 waiting jobs (benchmarks/claims.py)."""
    priority: Mapped[int]
    """Copy of the recipe's scheduling.priority, for sorting."""
    examples: Mapped[int | None]
    """Number of examples to train on, repeats included; None where they were not counted."""
    expected_seconds: Mapped[float | None]
    """Expected time of training, measured on similar jobs; None without any."""
    status: Mapped[JobStatus] = mapped_column(Word(JobStatus))
    """Written by the one statement of store.jobs.transitions."""
    requested_action: Mapped[RequestedAction | None] = mapped_column(Word(RequestedAction))
    """Action that a user or the scheduler requests of a running job; its worker carries it out."""
    attempt: Mapped[int]
    """Number of times that a worker has started it. Every write of a worker is guarded by its attempt."""
    retries: Mapped[int]
    """Infrastructure failures in a row without progress past `failed_step`."""
    failed_step: Mapped[int | None]
    """Furthest step that was reached when the infrastructure failed."""
    not_before: Mapped[datetime | None]
    """Time before which it is not started again after a failure."""
    batch: Mapped[dict[str, Any] | None]
    """A contract.recipe.Batch that replaces the recipe's, which did not fit into the device's memory."""
    worker: Mapped[str | None]
    """Worker of the latest attempt; of several machines the one with the lease."""
    lease_expires_at: Mapped[datetime | None]
    """End of the worker's lease, by the database's clock."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    """Start of the latest attempt."""
    finished_at: Mapped[datetime | None]
    total_steps: Mapped[int | None]
    loss_curve: Mapped[list[float] | None] = mapped_column(ARRAY(REAL), deferred=True)
    """The losses that the live table shows, once it has ended: store.jobs.loss_curve."""
    failure: Mapped[dict[str, Any] | None]
    """A contract.failure.Failure."""
    log_tail: Mapped[str | None]
    command: Mapped[str | None]
    """Command line of the latest attempt, quoted for a shell."""
    rendezvous: Mapped[str | None]
    """HOST:PORT at which the machines of the latest attempt meet. None before it is known; empty when they are to
    stop."""
    cluster_wait: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """A store.scheduling.situation.Wait while the latest attempt waits in a cluster's own queue."""
    exit_report: Mapped[dict[str, Any] | None]
    """How the latest attempt's processes ended: a contract.exit_report.ExitReport."""
    training_file: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    """The uploaded dataset that it trains on, which cannot be deleted before the job has ended."""
    validation_file: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    start_from_job: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    """The job with whose adapter it starts, which cannot be deleted before this one has ended."""
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id", ondelete="SET NULL"))
    sweep_values: Mapped[dict[str, Any] | None]
    """The values that its sweep gave it, by the path of the field."""
    openai_request: Mapped[dict[str, Any] | None]
    """The fields of the request to OpenAI's API that created it, for its answers; None for other jobs."""
    tags: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """Names and values of the owner, by which lists are filtered. OpenAI's API calls them metadata."""
    model_deleted_at: Mapped[datetime | None]
    """When the owner deleted its model."""
    run_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Bytes in its run folders that belong to no artifact, when they were last measured."""
    artifact_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Bytes of its artifacts then: to add them up from their own rows takes three times as long."""
    measured_attempt: Mapped[int] = mapped_column(server_default="0")
    """The attempt after which both were measured; 0 again when its artifacts have changed since."""
    cleaned_at: Mapped[datetime | None]
    """When store.retention last deleted what was due in its run folders."""
    traceparent: Mapped[str | None]
    """The span of the request that created it, under which workers add theirs; None while tracing was off."""
    event_count: Mapped[int]
    """The last event's seq. Taking the next one locks the row, so that events become visible in order."""
    changed: Mapped[int] = mapped_column(BigInteger, server_default=text(TRANSACTION), deferred=True)
    """The transaction that last changed what a summary shows; a trigger writes it. All transactions before a snapshot's
    xmin have ended, so a reader that goes on from there misses none, however late it was committed."""


class DeletedJob(Base):
    """A job that was deleted lately, for those who have it in a list."""

    __tablename__ = "deleted_jobs"
    __table_args__ = (Index("ix_deleted_jobs_changed", "changed"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    changed: Mapped[int] = mapped_column(BigInteger, server_default=text(TRANSACTION))
    deleted_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Event(Base):
    """Something that happened to a job. Metrics have a table of their own: they are many and are read by column."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[float]
    """Seconds since the epoch."""
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class StepMetric(Base):
    """The metrics of one optimizer step, as in contract.events.Metric."""

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
    router_loss: Mapped[float | None]
    token_accuracy: Mapped[float | None]
    reward_accuracy: Mapped[float | None]
    reward_margin: Mapped[float | None]
    chosen_reward: Mapped[float | None]
    rejected_reward: Mapped[float | None]
    chosen_tokens: Mapped[float | None]
    rejected_tokens: Mapped[float | None]


class Artifact(Base):
    """A file or folder of a job, which can be downloaded once it is published."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_unpublished", "job_id", postgresql_where=text("published_at IS NULL")),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    """adapter, checkpoint, merged, log, metrics, results, tensorboard, curve or card"""
    step: Mapped[int | None]
    path: Mapped[str]
    """Path of the folder or file below the runs folder."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    """Size of a download; before it is published, of its files."""
    eval_loss: Mapped[float | None]
    """Loss of the evaluation at its step; None without one."""
    reward_accuracy: Mapped[float | None]
    """Of that evaluation, for a method with rewards."""
    reward_margin: Mapped[float | None]
    files: Mapped[list[Any] | None]
    """Name, bytes and SHA-256 of each file in it; None until they are in the storage."""
    sha256: Mapped[str | None]
    """Digest of a download; None until it is published."""
    published_at: Mapped[datetime | None]
    """When it was complete in the storage, or given up because its files are gone."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
