"""Uploads of a job's artifacts to a model hub."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Push(Base):
    """A request for an artifact to be uploaded to a hub, which a process of the API does."""

    __tablename__ = "pushes"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')", name="status"),
        CheckConstraint("(status IN ('queued', 'running')) = (due_at IS NOT NULL)", name="due"),
        CheckConstraint("(status = 'succeeded') = (commit_url IS NOT NULL)", name="commit"),
        CheckConstraint("(status = 'failed') <= (error IS NOT NULL)", name="error"),
        Index("ix_pushes_job", "job_id"),
        Index("ix_pushes_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    artifact: Mapped[str]
    """Name of an adapter, a checkpoint or an export among the job's artifacts."""
    repo: Mapped[str]
    revision: Mapped[str | None]
    """A branch; None is the repo's main one."""
    private: Mapped[bool]
    """Whether the repo is private, if this push creates it."""
    owner: Mapped[str]
    """Who has requested it, and has the secret."""
    secret: Mapped[str]
    """Name of the secret with the hub's token."""
    status: Mapped[str]
    claims: Mapped[int]
    """Number of times that a process took it, by which only the latest one writes."""
    failures: Mapped[int]
    """Failed tries so far."""
    error: Mapped[str | None]
    """Error of the last try."""
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    """Time of the next try; while one is under way, the end of its lease, by the database's clock."""
    url: Mapped[str | None]
    """Address of the repo."""
    commit_url: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
