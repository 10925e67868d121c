"""Finds the owner of a key, or of a browser that is signed in with one."""

import hmac
import time
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from store.access import keys, sign_ins
from store.models import Key
from store.session import Sessions

_REMEMBERED = 1.0  # seconds: a key that another process has revoked opens for no longer
_MOST = 10_000


@dataclass(frozen=True)
class Credential:
    """What a request shows."""

    secret: str = field(repr=False)
    is_session: bool = False
    """Whether it is the token of a sign-in, and not a key."""


@dataclass(frozen=True)
class Holder:
    """The owner of a key."""

    owner: str
    admin: bool
    key_id: str | None


@dataclass
class Keyring:
    """Reads each key from the database once a second, not once per request."""

    sessions: Sessions
    admin_key: str | None
    """The key of the settings, which has all rights."""
    _known: dict[tuple[str, bool], tuple[float, Holder]] = field(default_factory=dict)

    def remembered(self, shown: Credential) -> Holder | None:
        """The owner, if it is known without the database."""
        digest = keys.digest(shown.secret)
        may_be_admin = self.admin_key is not None and not shown.is_session
        if may_be_admin and hmac.compare_digest(digest, keys.digest(self.admin_key or "")):
            return _ADMIN
        until, holder = self._known.get((digest, shown.is_session), (0.0, None))
        return holder if time.monotonic() < until else None

    def find(self, shown: Credential) -> Holder | None:
        known = self._known
        with self.sessions.begin() as session:
            holder = self._signed_in(session, shown.secret) if shown.is_session else _holder(session, shown.secret)
        if holder is None:
            return None
        if len(known) >= _MOST:
            known.clear()
        # If all was forgotten meanwhile, nobody reads this any more: the key may have been revoked after it was read.
        known[keys.digest(shown.secret), shown.is_session] = (time.monotonic() + _REMEMBERED, holder)
        return holder

    def _signed_in(self, session: Session, token: str) -> Holder | None:
        found = sign_ins.find(session, token, self.admin_key)
        if found is None:
            return None
        return _ADMIN if found.key is None else _holder_of(found.key)

    def forget(self) -> None:
        """Forgets all keys, after one was revoked or signed out here: it opens nothing from now on."""
        self._known = {}


_ADMIN = Holder("admin", True, None)


def _holder(session: Session, secret: str) -> Holder | None:
    key = keys.find(session, secret)
    return None if key is None else _holder_of(key)


def _holder_of(key: Key) -> Holder:
    return Holder(key.owner, key.admin, key.id)
