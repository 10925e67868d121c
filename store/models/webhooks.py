"""Addresses that are told when a job ends, and what was sent to them."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Webhook(Base):
    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner", "owner"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    url: Mapped[str]
    secret: Mapped[str]
    """With which deliveries are signed; told once."""
    events: Mapped[list[Any]]
    """The types that it wants."""
    enabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base):
    """A message to a webhook: written with what it tells of, in one transaction, and sent until it is taken."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_deliveries_due", "due_at", postgresql_where=text("status = 'pending'")),
        Index("ix_deliveries_newest", "webhook_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """The message's webhook-id, the same at every try."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    """Of the next try; moved on before each one, so that a sender that dies leaves it to another."""
    response_status: Mapped[int | None]
    """HTTP status of the last answer."""
    error: Mapped[str | None]
    """Of the last try."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
