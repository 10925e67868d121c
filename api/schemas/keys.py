from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from api.auth.owner import Owner
from contract import patterns
from store.models import Key


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    owner: Owner
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=patterns.TEXT)] | None = None
    admin: bool = False


class KeyOut(BaseModel):
    id: str
    owner: str
    name: str | None
    admin: bool
    hint: str
    """The secret's last characters."""
    created_at: datetime
    revoked_at: datetime | None


class KeyCreated(KeyOut):
    secret: str | None
    """Told this once. Null where the request was sent before, and was answered then."""


class KeyPage(BaseModel):
    data: list[KeyOut]
    has_more: bool


def key_out(key: Key) -> KeyOut:
    return KeyOut.model_validate(key, from_attributes=True)


def key_created(key: Key, secret: str | None) -> KeyCreated:
    return KeyCreated(**key_out(key).model_dump(), secret=secret)
