"""Files of examples: uploaded, or a reference to a file of the server."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Blob(Base):
    """Bytes in the storage, stored once however often and by whomever they were uploaded."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dataset(Base):
    """A file of examples of one owner, which OpenAI's API calls a file."""

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
    """The purpose given at the upload: fine-tune."""
    sha256: Mapped[str | None] = mapped_column(ForeignKey("blobs.sha256"))
    """Digest of the blob with its bytes; None where they are at `path`."""
    path: Mapped[str | None]
    """Path of a file on the server; None where the bytes are in a blob."""
    source: Mapped[str | None]
    """Origin of a fetched file, such as a hub's id; None for an upload."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str]
    status_details: Mapped[str | None]
    """Description of the first problem, where the status is error."""
    format: Mapped[str | None]
    """Format given by the owner, else found by dataset.formats.detect."""
    columns: Mapped[dict[str, Any] | None]
    """Column names as in a recipe's dataset.columns, given by the owner or found by the check; None for the standard
    names of the format."""
    rows: Mapped[int | None]
    report: Mapped[dict[str, Any] | None]
    """Report of the check of every row."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
