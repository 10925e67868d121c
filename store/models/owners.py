"""Who may do what, what they did, and what they have already asked."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Key(Base):
    """A secret by which an owner is known. The secret itself is told once, and kept nowhere."""

    __tablename__ = "keys"
    __table_args__ = (Index("uq_keys_digest", "digest", unique=True), Index("ix_keys_owner", "owner"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str | None]
    """For people."""
    admin: Mapped[bool]
    """It may see and change what all owners have, and make keys."""
    digest: Mapped[str]
    """SHA-256 of the secret, which is random and long enough to need no slow hash."""
    hint: Mapped[str]
    """The secret's last characters, by which people know it again."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class Quota(Base):
    """What one owner may have, or with the name "*" everybody who has no limits of its own; None leaves those."""

    __tablename__ = "quotas"

    owner: Mapped[str] = mapped_column(primary_key=True)
    running_jobs: Mapped[int | None]
    queued_jobs: Mapped[int | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)


class AuditEntry(Base):
    """Who did what, and when. Rows are only ever added: triggers refuse all else."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_owner", "owner", "seq"),)

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    owner: Mapped[str]
    key_id: Mapped[str | None]
    """None where no key was asked for."""
    action: Mapped[str]
    """Such as "job.create"."""
    target: Mapped[str | None]
    """The id of what it was done to."""
    request_id: Mapped[str]
    data: Mapped[dict[str, Any] | None]
    """What else is worth knowing; never a secret."""


class Request(Base):
    """A request that makes something: one that is repeated gets what the first one made."""

    __tablename__ = "requests"
    __table_args__ = (
        Index("uq_requests_key", "owner", "route", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
        Index("ix_requests_body", "owner", "route", "body_sha256", "created_at"),
        Index("ix_requests_created", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    route: Mapped[str]
    key: Mapped[str | None]
    """The Idempotency-Key that was sent."""
    body_sha256: Mapped[str]
    """Of the query too."""
    resource: Mapped[str | None]
    """The id of what it made; None while it is at work."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Later, where it was at work for long: when it last said so."""
