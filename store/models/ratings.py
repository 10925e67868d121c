"""What people think of a model's answers."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class AnswerRating(Base):
    """A verdict on an answer: that it is good or bad, or that it is better than another one to the same messages."""

    __tablename__ = "ratings"
    __table_args__ = (
        CheckConstraint("(label IS NULL) <> (rejected IS NULL)", name="verdict"),
        CheckConstraint("(rejected IS NULL) = (rejected_model IS NULL)", name="rejected_model"),
        Index("ix_ratings_job_newest", "job_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    owner: Mapped[str]
    """Who has rated."""
    messages: Mapped[list[Any]]
    """The conversation before the answer."""
    tools: Mapped[list[Any] | None]
    chat_template_kwargs: Mapped[dict[str, Any] | None]
    answer: Mapped[dict[str, Any]]
    """A message of the assistant."""
    model: Mapped[str]
    """The name of the model that has said it."""
    label: Mapped[bool | None]
    """Whether it is good; None for a comparison."""
    rejected: Mapped[dict[str, Any] | None]
    """The worse answer."""
    rejected_model: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
