import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator

from api.body import described, json_body
from api.deps import Db
from api.idempotency import Once, with_body
from api.owner import Owner
from api.schemas.keys import KeyCreated, KeyOut, KeyPage, NewKey
from api.services import keys as service
from api.who import Admin
from contract.quote import cut
from store.errors import KeyNotFound

router = APIRouter(tags=["keys"])


def _key_id(value: str) -> str:
    """Raises KeyNotFound for what can be no key's id."""
    if not re.fullmatch(r"key_[0-9a-f]{24}", value):
        raise KeyNotFound(cut(value))
    return value


KeyId = Annotated[str, AfterValidator(_key_id)]


@router.post("/keys", status_code=HTTPStatus.CREATED, openapi_extra=described(NewKey))
def create_key(db: Db, who: Admin, asked: Once, new: Annotated[NewKey, Depends(json_body(NewKey))]) -> KeyCreated:
    """Makes a key of an owner, whom it makes known. Its secret is told this once. For admins."""
    return service.create(db, who, with_body(asked, new.model_dump_json().encode()), new)


@router.get("/keys")
def list_keys(
    db: Db,
    who: Admin,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: KeyId | None = None,
    owner: Owner | None = None,
) -> KeyPage:
    """Newest first, the revoked ones too. For admins."""
    return service.newest(db, limit, after, owner)


@router.delete("/keys/{key_id}")
def revoke_key(request: Request, db: Db, who: Admin, key_id: KeyId) -> KeyOut:
    """Revokes a key: it opens nothing from then on, with other processes of the API within a second. For admins."""
    return service.revoke(db, request.app.state.keyring, who, key_id)
