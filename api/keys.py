"""Makes, lists and revokes keys. For admins."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from api.auth.owner import Owner
from api.auth.who import Admin
from api.context import Context
from api.errors import InvalidParameter
from api.http.body import described, json_body
from api.http.idempotency import Once, idempotent
from api.http.ids import KeyId
from contract import patterns
from store.access import audit, keys
from store.models import Key
from store.paging import page


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    owner: Owner
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)] | None = None
    admin: bool = False
    expires_at: AwareDatetime | None = None
    """Time from which it opens nothing; null for never."""


class KeyOut(BaseModel):
    id: str
    owner: str
    name: str | None
    admin: bool
    hint: str
    """Last characters of the secret."""
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None


class KeyCreated(KeyOut):
    secret: str | None
    """Shown only in this response. Null if the request was sent and answered before."""


class KeyPage(BaseModel):
    data: list[KeyOut]
    has_more: bool


router = APIRouter(tags=["keys"])


@router.post("/keys", status_code=HTTPStatus.CREATED, openapi_extra=described(NewKey))
def create_key(
    services: Context, who: Admin, once: Once, new: Annotated[NewKey, Depends(json_body(NewKey))]
) -> KeyCreated:
    """Makes a key of an owner, who need not be known yet. Only this answer has its secret. For admins."""
    if new.expires_at is not None and new.expires_at <= datetime.now(UTC):
        raise InvalidParameter("expires_at", new.expires_at.isoformat(), "give a time in the future, or null for never")
    with idempotent(services, once) as turn, services.sessions.begin() as session:
        if turn.made is not None:
            return key_created(keys.get(session, turn.made), None)
        key, secret = keys.create(session, new.owner, new.name, new.admin, new.expires_at)
        expires = {} if new.expires_at is None else {"expires_at": new.expires_at.isoformat()}
        audit.record(session, who, "key.create", key.id, owner=new.owner, admin=new.admin, **expires)
        turn.complete(session, key.id)
        return key_created(key, secret)


@router.get("/keys")
def list_keys(
    services: Context,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: KeyId | None = None,
    owner: Owner | None = None,
) -> KeyPage:
    """Newest first, the revoked ones too. For admins."""
    with services.sessions.begin() as session:
        found = page(keys.list_keys(session, limit + 1, after, owner), limit)
        return KeyPage(data=[key_out(key) for key in found.rows], has_more=found.has_more)


@router.delete("/keys/{key_id}")
def revoke_key(services: Context, who: Admin, key_id: KeyId) -> KeyOut:
    """Revokes a key. It opens nothing from then on; other processes of the API follow within a second. For admins."""
    with services.sessions.begin() as session:
        key = keys.revoke(session, key_id)
        audit.record(session, who, "key.revoke", key_id)
        revoked = key_out(key)
    services.keyring.forget()
    return revoked


def key_out(key: Key) -> KeyOut:
    return KeyOut.model_validate(key, from_attributes=True)


def key_created(key: Key, secret: str | None) -> KeyCreated:
    return KeyCreated(**key_out(key).model_dump(), secret=secret)
