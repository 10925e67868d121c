"""Finds the owner of a key."""

import hmac
import time
from dataclasses import dataclass, field

from store.access import keys
from store.session import Sessions

_REMEMBERED = 1.0  # seconds: a key that another process has revoked opens for no longer
_MOST = 10_000


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
    _known: dict[str, tuple[float, Holder]] = field(default_factory=dict)

    def remembered(self, secret: str) -> Holder | None:
        """The owner, if it is known without the database."""
        digest = keys.digest(secret)
        if self.admin_key is not None and hmac.compare_digest(digest, keys.digest(self.admin_key)):
            return Holder("admin", True, None)
        until, holder = self._known.get(digest, (0.0, None))
        return holder if time.monotonic() < until else None

    def find(self, secret: str) -> Holder | None:
        with self.sessions.begin() as session:
            key = keys.find(session, secret)
        if key is None:
            return None
        holder = Holder(key.owner, key.admin, key.id)
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[keys.digest(secret)] = (time.monotonic() + _REMEMBERED, holder)
        return holder

    def forget(self) -> None:
        """Forgets all keys, after one was revoked here: it opens nothing from now on."""
        self._known.clear()
