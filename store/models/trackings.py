"""How far the trackers of jobs are."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, func, text, true
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class TrackedRun(Base):
    """What a tracker has of a job."""

    __tablename__ = "trackings"
    __table_args__ = (Index("ix_trackings_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    """mlflow or wandb: the field of the recipe's `tracking` that says where it is."""
    run: Mapped[str | None]
    """Id of the job's run in the tracker; None before there is one."""
    seq: Mapped[int] = mapped_column(server_default="0")
    """The last event that was sent."""
    step: Mapped[int] = mapped_column(server_default="0")
    """The last step whose metrics were sent."""
    eval_step: Mapped[int] = mapped_column(server_default="-1")
    """Step of the last evaluation that was sent; -1 before the first."""
    is_certain: Mapped[bool] = mapped_column(server_default=true())
    """Whether the outcome of the last send is known. False while one is under way."""
    claims: Mapped[int] = mapped_column(server_default="0")
    """Number of times that a follower took it, by which only the latest one writes."""
    failures: Mapped[int] = mapped_column(server_default="0")
    """Failed sends in a row."""
    error: Mapped[str | None]
    """Error of the last send."""
    due_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    """Time of the next look; None when all of an ended job was sent, or was given up. A claim moves it forward, so that
    another follower takes over from one that dies."""
    updated_at: Mapped[datetime | None]
    """When something was sent last."""
