"""Bytes that are still to be deleted."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Deletion(Base):
    """A file or folder whose rows are deleted and whose bytes are to be deleted too."""

    __tablename__ = "deletions"
    __table_args__ = (CheckConstraint("path <> ''", name="path"), Index("ix_deletions_due", "due_at"))

    path: Mapped[str] = mapped_column(primary_key=True)
    """Path below the runs folder, in the home folder and in the storage."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Time of the next try. It is moved forward before each try, so that another worker takes over from one that
    dies."""
