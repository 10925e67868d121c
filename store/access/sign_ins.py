"""Browsers that are signed in with a key. The token is in the browser's cookie; only its digest is stored."""

import hashlib
import hmac
import secrets
from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session

from store.access import keys
from store.access.keys import digest
from store.models import Key, SignIn

LIFETIME = timedelta(days=30)
_RANDOM_BYTES = 32


class SignedIn(NamedTuple):
    key: Key | None
    """None for the admin key of the settings."""


def create(session: Session, key_id: str | None, admin_key: str | None) -> str:
    """Signs in with a key, or with the admin key of the settings where `key_id` is None. Returns the token."""
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    stored = digest(token) if key_id is not None else _bound(token, admin_key or "")
    session.add(SignIn(digest=stored, key_id=key_id, ends_at=func.now() + LIFETIME))
    session.flush()
    return token


def _bound(token: str, admin_key: str) -> str:
    return hmac.new(token.encode(), admin_key.encode(), hashlib.sha256).hexdigest()


def find(session: Session, token: str, admin_key: str | None) -> SignedIn | None:
    """The key that the token's sign-in opens with; None where it has ended or its key is no longer valid."""
    with_key = (SignIn.digest == digest(token)) & keys.valid() & Key.id.is_not(None)
    opens: list[ColumnElement[bool]] = [with_key]
    if admin_key is not None:
        opens.append((SignIn.digest == _bound(token, admin_key)) & SignIn.key_id.is_(None))
    query = select(SignIn.digest, Key).outerjoin(Key, SignIn.key_id == Key.id)
    found = session.execute(query.where(SignIn.ends_at > func.now(), or_(*opens))).one_or_none()
    return None if found is None else SignedIn(found[1])


def end(session: Session, tokens: Collection[str], admin_key: str | None) -> None:
    """Signs out."""
    digests = [digest(token) for token in tokens]
    if admin_key is not None:
        digests += [_bound(token, admin_key) for token in tokens]
    session.execute(delete(SignIn).where(SignIn.digest.in_(digests)))


def forget(session: Session) -> None:
    """Deletes the sign-ins that have ended, and those whose key is no longer valid."""
    invalid = select(Key.id).where(~keys.valid())
    session.execute(delete(SignIn).where((SignIn.ends_at <= func.now()) | SignIn.key_id.in_(invalid)))
