"""Keys, quotas, the audit log and idempotent requests."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Identity, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from store.models.base import Base


class Key(Base):
    """An API key of an owner. The secret itself is shown once and never stored."""

    __tablename__ = "keys"
    __table_args__ = (Index("uq_keys_digest", "digest", unique=True), Index("ix_keys_owner", "owner"))

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str | None]
    """Label for people."""
    admin: Mapped[bool]
    """Whether it may see and change what all owners have, and make keys."""
    digest: Mapped[str]
    """SHA-256 of the secret. The secret is random and long, so no slow hash is needed."""
    hint: Mapped[str]
    """Last characters of the secret, by which people recognise it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    """Time from which it opens nothing; None for never."""


class SignIn(Base):
    """A browser that is signed in with a key. It opens what the key opens; the token itself is never stored."""

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_ends", "ends_at"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of the token; with the admin key of the settings, an HMAC of that key by the token, so that another admin
    key ends it."""
    key_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id", ondelete="CASCADE"))
    """None for the admin key of the settings."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ends_at: Mapped[datetime]


class Quota(Base):
    """Limits of one owner; the row "*" holds those of every owner without its own. None sets no limit."""

    __tablename__ = "quotas"

    owner: Mapped[str] = mapped_column(primary_key=True)
    running_jobs: Mapped[int | None]
    queued_jobs: Mapped[int | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)


class AuditEntry(Base):
    """An entry of the audit log. Triggers refuse everything but inserts."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_owner", "owner", "seq"),
        Index("ix_audit_action", "action", "seq"),
        Index("ix_audit_target", "target", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    owner: Mapped[str]
    key_id: Mapped[str | None]
    """None where no key was required."""
    action: Mapped[str]
    """Noun and verb, such as "job.create"."""
    target: Mapped[str | None]
    """Id of the changed object."""
    request_id: Mapped[str]
    data: Mapped[dict[str, Any] | None]
    """Further details, without secrets."""


class Request(Base):
    """A request that creates something: a repeated one gets what the first one made."""

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
    """The Idempotency-Key of the request."""
    body_sha256: Mapped[str]
    """Digest of the query and the body."""
    resource: Mapped[str | None]
    """Id of what it made; None while it is in progress."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """Moved forward while a long request renews itself."""
