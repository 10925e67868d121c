"""Processes that answer with a base model and its adapters."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class InferenceServer(Base):
    """An inference server: wanted, on a device, or just ended. While it has a device, no row of `leases` may use that
    device alone."""

    __tablename__ = "inference_servers"
    __table_args__ = (
        CheckConstraint("state IN ('wanted', 'starting', 'ready', 'stopping', 'failed')", name="state"),
        CheckConstraint("(state IN ('wanted', 'failed')) = (worker IS NULL)", name="worker"),
        CheckConstraint("(state = 'ready') <= (address IS NOT NULL)", name="address"),
        ForeignKeyConstraint(["worker", "number"], ["devices.worker", "devices.number"], ondelete="CASCADE"),
        Index("uq_inference_servers_base", "base", unique=True, postgresql_where=text("state <> 'stopping'")),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str]
    """The base model, as recipes name it."""
    state: Mapped[str]
    worker: Mapped[str | None]
    number: Mapped[int | None]
    """Its device on the worker's machine."""
    secret: Mapped[str]
    """What requests to it carry."""
    address: Mapped[str | None]
    """HOST:PORT at which it answers."""
    failure: Mapped[dict[str, Any] | None]
    """A contract.failure.Failure: why it could not start."""
    failed_worker: Mapped[str | None]
    failed_number: Mapped[int | None]
    """The device on which it could not start, the last time, through no fault of the model."""
    changed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time of its last state."""
    used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time of the last request for it, or of an answer that was under way. Evaluations count as somewhat earlier."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time at which its worker last reported it."""
