"""Keys: made, found by their secret, revoked. A secret is told when its key is made, and only its digest is kept."""

import hashlib
import secrets

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from store.errors import KeyNotFound
from store.models import Key

PREFIX = "sk-ft-"
_RANDOM_BYTES = 32
_HINT = 4  # characters


def create(session: Session, owner: str, name: str | None, admin: bool) -> tuple[Key, str]:
    """A new key, and its secret."""
    secret = PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    key = Key(
        id=f"key_{secrets.token_hex(12)}",
        owner=owner,
        name=name,
        admin=admin,
        digest=digest(secret),
        hint=secret[-_HINT:],
    )
    session.add(key)
    session.flush()
    return key, secret


def digest(secret: str) -> str:
    """SHA-256 in hex. What is compared is this: the time that a comparison takes says nothing of the secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(session: Session, secret: str) -> Key | None:
    """The key of that secret, where it has not been revoked."""
    return session.scalar(select(Key).where(Key.digest == digest(secret), Key.revoked_at.is_(None)))


def any_there(session: Session) -> bool:
    return session.scalar(select(Key.id).where(Key.revoked_at.is_(None)).limit(1)) is not None


def get(session: Session, key_id: str) -> Key:
    """Raises KeyNotFound."""
    key = session.get(Key, key_id)
    if key is None:
        raise KeyNotFound(key_id)
    return key


def newest(session: Session, limit: int, after: str | None, owner: str | None) -> list[Key]:
    """Newest first, of `owner` where it is given; `after` is the last id of the page before. Raises KeyNotFound."""
    query = select(Key).order_by(Key.created_at.desc(), Key.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(Key.owner == owner)
    if after is not None:
        last = get(session, after)
        query = query.where(tuple_(Key.created_at, Key.id) < (last.created_at, last.id))
    return list(session.scalars(query))


def revoke(session: Session, key_id: str) -> Key:
    """Again does nothing. Raises KeyNotFound."""
    key = get(session, key_id)
    session.execute(update(Key).where(Key.id == key_id, Key.revoked_at.is_(None)).values(revoked_at=func.now()))
    session.refresh(key)
    return key
