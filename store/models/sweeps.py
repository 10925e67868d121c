"""Sweeps."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Sweep(Base):
    """A group of jobs that were submitted together, to compare what some fields of the recipe do. It lasts as long as
    any of its jobs."""

    __tablename__ = "sweeps"
    __table_args__ = (Index("ix_sweeps_owner_newest", "owner", text("created_at DESC"), text("id DESC")),)

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str | None]
    fields: Mapped[list[Any]]
    """Dotted paths of the recipe's fields that the sweep sets, in the order they were written."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
