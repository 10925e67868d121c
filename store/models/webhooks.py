"""Webhooks and the deliveries to them."""

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
    """Key that signs deliveries, shown once and encrypted by store.access.vault."""
    events: Mapped[list[Any]]
    """Types of the events that it receives."""
    enabled: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Delivery(Base):
    """A message to a webhook, written in the transaction of the event it reports, and sent until it is accepted."""

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'delivered', 'failed')", name="status"),
        Index("ix_deliveries_due", "due_at", postgresql_where=text("status = 'pending'")),
        Index("ix_deliveries_newest", "webhook_id", text("created_at DESC"), text("id DESC")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """Header webhook-id of the message, the same for every try."""
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[str]
    attempts: Mapped[int]
    due_at: Mapped[datetime]
    """Time of the next try. It is moved forward before each try, so that another sender takes over from one that
    dies."""
    response_status: Mapped[int | None]
    """HTTP status of the last response."""
    error: Mapped[str | None]
    """Error of the last try."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
