"""Stores and deletes secrets of an owner. No response has a value."""

import re
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from api.auth.who import Who
from api.context import Context
from api.http.body import described, json_body
from contract import patterns
from store.access import audit, secrets
from store.models import Secret

router = APIRouter(tags=["secrets"])

Name = Annotated[str, Path(pattern=patterns.SECRET)]
LONGEST = 4096


def _check_value(given: object) -> object:
    """Raises ValueError, which says nothing of the value: the errors of pydantic show it."""
    if not isinstance(given, str) or len(given) > LONGEST or not re.fullmatch(patterns.SECRET_VALUE, given):
        raise ValueError("give a text of 1 to 4096 printable ASCII characters, without spaces around it")
    return given


_SCHEMA = {"type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": patterns.SECRET_VALUE}
Value = Annotated[str, BeforeValidator(_check_value), WithJsonSchema(_SCHEMA)]


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    value: Value


class SecretOut(BaseModel):
    name: str
    owner: str
    created_at: datetime
    updated_at: datetime


class SecretList(BaseModel):
    data: list[SecretOut]


class SecretDeleted(BaseModel):
    name: str
    deleted: Literal[True] = True


@router.put("/secrets/{secret_name}", openapi_extra=described(NewSecret))
def set_secret(
    services: Context, who: Who, secret_name: Name, new: Annotated[NewSecret, Depends(json_body(NewSecret))]
) -> SecretOut:
    """Stores a secret encrypted, in place of the owner's earlier one with this name."""
    with services.sessions.begin() as session:
        secret = secrets.put(session, services.vault, who.owner, secret_name, new.value)
        audit.record(session, who, "secret.put", secret_name)
        return _out(secret)


@router.get("/secrets")
def list_secrets(services: Context, who: Who) -> SecretList:
    """The owner's secrets by name, without their values."""
    with services.sessions.begin() as session:
        return SecretList(data=[_out(each) for each in secrets.list_secrets(session, who.owner)])


@router.delete("/secrets/{secret_name}")
def delete_secret(services: Context, who: Who, secret_name: Name) -> SecretDeleted:
    """What names it fails from then on."""
    with services.sessions.begin() as session:
        secrets.delete(session, who.owner, secret_name)
        audit.record(session, who, "secret.delete", secret_name)
    return SecretDeleted(name=secret_name)


def _out(secret: Secret) -> SecretOut:
    return SecretOut.model_validate(secret, from_attributes=True)
