"""API keys. A secret is shown once, when its key is made; only its digest is stored."""

import hashlib
import secrets
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from contract import ids
from store.errors import KeyNotFound
from store.models import Key
from store.paging import newest_first

PREFIX = "sk-ft-"
_RANDOM_BYTES = 32
_HINT = 4  # characters


def create(
    session: Session, owner: str, name: str | None, admin: bool, expires_at: datetime | None = None
) -> tuple[Key, str]:
    """A new key, and its secret."""
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    key = Key(
        id=ids.new_id(ids.KEY),
        owner=owner,
        name=name,
        admin=admin,
        digest=digest(secret),
        hint=secret[-_HINT:],
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, secret


def digest(secret: str) -> str:
    """SHA-256 in hex. Comparing digests, not secrets, keeps the timing from revealing anything."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(session: Session, secret: str) -> Key | None:
    """The valid key of a secret, or None."""
    return session.scalar(select(Key).where(Key.digest == digest(secret), valid()))


def valid() -> ColumnElement[bool]:
    """Whether a key is neither revoked nor has expired."""
    return Key.revoked_at.is_(None) & (Key.expires_at.is_(None) | (Key.expires_at > func.now()))


def any_active(session: Session) -> bool:
    return session.scalar(select(Key.id).where(valid()).limit(1)) is not None


def any_admin(session: Session) -> bool:
    return session.scalar(select(Key.id).where(Key.admin, valid()).limit(1)) is not None


def get(session: Session, key_id: str) -> Key:
    """A key, revoked or not. Raises KeyNotFound."""
    key = session.get(Key, key_id)
    if key is None:
        raise KeyNotFound(key_id)
    return key


def list_keys(session: Session, limit: int, after: str | None, owner: str | None) -> list[Key]:
    """One page of keys, newest first, of `owner` or of all; `after` is the last id of the page before. Raises
    KeyNotFound."""
    query = select(Key)
    if owner is not None:
        query = query.where(Key.owner == owner)
    last = None if after is None else get(session, after)
    return list(session.scalars(newest_first(query, Key, limit, last)))


def revoke(session: Session, key_id: str) -> Key:
    """Revokes a key; a second time changes nothing. Raises KeyNotFound."""
    key = get(session, key_id)
    session.execute(update(Key).where(Key.id == key_id, Key.revoked_at.is_(None)).values(revoked_at=func.now()))
    session.refresh(key)
    return key
