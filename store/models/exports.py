"""Models made from a job's adapter after the job has ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Export(Base):
    """A request for an adapter in another format, which a worker makes."""

    __tablename__ = "exports"
    __table_args__ = (
        CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')", name="status"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name="failure"),
        Index("ix_exports_job", "job_id"),
        Index("ix_exports_open", "created_at", postgresql_where=text("status IN ('queued', 'running')")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    format: Mapped[str]
    """A contract.export.ExportFormat."""
    shard_size: Mapped[str | None]
    """The largest file of a merged model's weights, such as "2GB"; None is 5GB."""
    source: Mapped[str]
    """Name of the adapter or checkpoint among the job's artifacts."""
    status: Mapped[str]
    attempt: Mapped[int]
    """Number of times that a worker has claimed it."""
    worker: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    """End of the worker's lease, by the database's clock."""
    failure: Mapped[dict[str, Any] | None]
    """A contract.failure.Failure."""
    artifact: Mapped[str | None]
    """Name of the result among the job's artifacts."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    finished_at: Mapped[datetime | None]
