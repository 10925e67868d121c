"""Datasets that were run through a job's base model and its adapter."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class JobEvaluation(Base):
    """A request to compare a base model and an adapter on a dataset. A worker works through its examples."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')", name="status"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
        CheckConstraint("(status = 'succeeded') = (scores IS NOT NULL)", name="scores"),
        Index("ix_evaluations_job", "job_id"),
        Index("ix_evaluations_newest", text("created_at DESC"), text("id DESC")),
        Index("ix_evaluations_dataset", "sha256"),
        Index("ix_evaluations_open", "turn_at", postgresql_where=text("status IN ('queued', 'running')")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    source: Mapped[str]
    """Name of the adapter or checkpoint among the job's artifacts."""
    step: Mapped[int | None]
    """The step after which it was saved."""
    dataset: Mapped[dict[str, Any]]
    """A contract.recipe.DatasetSource, with the digest of the file and the chat template of the job."""
    sha256: Mapped[str]
    """Copy of that digest: evaluations of different jobs on one dataset are found by it."""
    settings: Mapped[dict[str, Any]]
    """limit, max_length, max_new_tokens, temperature and seed of a contract.evaluation.EvaluationRequest."""
    examples: Mapped[int]
    """Number of examples to evaluate, with those that are left out."""
    done: Mapped[int] = mapped_column(server_default="0")
    """Number of the last example that is done."""
    dropped: Mapped[int | None]
    """Number of examples that had nothing to learn within max_length; None before the end."""
    scores: Mapped[dict[str, Any] | None]
    """The scores of both models, by their names."""
    status: Mapped[str]
    waits: Mapped[str | None]
    """Why a queued one that a worker has tried could not go on, for people."""
    attempt: Mapped[int]
    """Number of times that a worker has claimed it."""
    breaks: Mapped[int] = mapped_column(server_default="0")
    """Number of times in a row that it broke off without a further example."""
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    """End of the worker's lease, by the database's clock."""
    failure: Mapped[dict[str, Any] | None]
    """A contract.failure.Failure."""
    artifact: Mapped[str | None]
    """Name of the file of its examples among the job's artifacts."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    turn_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was last put behind all others that wait, or the end of its pause."""
    finished_at: Mapped[datetime | None]


class EvaluatedRow(Base):
    """What both models made of an example."""

    __tablename__ = "evaluated_rows"

    evaluation_id: Mapped[str] = mapped_column(ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """Position of the example in the file, from 1."""
    data: Mapped[dict[str, Any]]
