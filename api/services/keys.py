"""Makes, lists and revokes keys."""

from api.idempotency import Settle, once
from api.keyring import Keyring
from api.schemas.keys import KeyCreated, KeyOut, KeyPage, NewKey, key_created, key_out
from store.access import audit, keys
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.session import Sessions


def create(sessions: Sessions, who: Principal, asked: Asked, new: NewKey) -> KeyCreated:
    """Raises RequestReused, StillAtWork."""

    def make(settle: Settle) -> KeyCreated:
        with sessions.begin() as session:
            key, secret = keys.create(session, new.owner, new.name, new.admin)
            audit.record(session, who, "key.create", key.id, owner=new.owner, admin=new.admin)
            settle(session, key.id)
            return key_created(key, secret)

    def again(key_id: str) -> KeyCreated:
        with sessions.begin() as session:
            return key_created(keys.get(session, key_id), None)

    return once(sessions, asked, make, again)


def newest(sessions: Sessions, limit: int, after: str | None, owner: str | None) -> KeyPage:
    """Raises KeyNotFound for an unknown `after`."""
    with sessions.begin() as session:
        found = keys.newest(session, limit + 1, after, owner)
        return KeyPage(data=[key_out(key) for key in found[:limit]], has_more=len(found) > limit)


def revoke(sessions: Sessions, keyring: Keyring, who: Principal, key_id: str) -> KeyOut:
    """Raises KeyNotFound."""
    with sessions.begin() as session:
        key = keys.revoke(session, key_id)
        audit.record(session, who, "key.revoke", key_id)
        revoked = key_out(key)
    keyring.forget()
    return revoked
