"""Files of examples that were uploaded, or are known by reference."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base

STATUSES = ("uploaded", "processed", "error")


class Blob(Base):
    """Bytes in the storage, once, whoever has uploaded them and however often."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dataset(Base):
    """A file of an owner's: of examples to train on, or of a job's results. OpenAI's wire calls it a file."""

    __tablename__ = "datasets"
    __table_args__ = (
        CheckConstraint("status IN ('uploaded', 'processed', 'error')", name="status"),
        CheckConstraint("(sha256 IS NULL) <> (path IS NULL)", name="source"),
        Index("ix_datasets_newest", "owner", text("created_at DESC"), text("id DESC")),
        Index("ix_datasets_sha256", "sha256"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    filename: Mapped[str]
    purpose: Mapped[str]
    """fine-tune, or fine-tune-results"""
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    """Of the blob that has its bytes; None where they lie at `path`."""
    path: Mapped[str | None]
    """A file on the server that the operator allows."""
    source: Mapped[str | None]
    """Where it was fetched from, such as a hub's id; None where it was uploaded."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    status_details: Mapped[str | None]
    """What is wrong with it."""
    format: Mapped[str | None]
    """As its owner says, else as dataset.formats.detect tells it."""
    columns: Mapped[dict[str, Any] | None]
    """As a recipe's dataset.columns: as its owner says, else as the check found; None where the file has the format's
    own names."""
    rows: Mapped[int | None]
    report: Mapped[dict[str, Any] | None]
    """What the check of every row has found."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
