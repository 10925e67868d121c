"""Who sends a request: by its key, or without one on a machine of one's own."""

from typing import Annotated

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.auth.key_check import Opened
from api.auth.owner import check_owner
from api.context import Context
from api.errors import AdminOnly, InvalidParameter, WrongKey
from contract import patterns
from store.access import keys
from store.access.principal import Principal

_bearer = HTTPBearer(
    auto_error=False, description="A key. On loopback none is needed, unless FINETUNED_REQUIRE_KEYS says so."
)


async def _who(
    request: Request,
    services: Context,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    x_owner: Annotated[
        str | None, Header(json_schema_extra={"pattern": patterns.OWNER, "maxLength": patterns.LONGEST_OWNER})
    ] = None,
) -> Principal:
    """An admin may act for another owner, named in the header x-owner. Raises WrongKey, TooManyRequests,
    InvalidParameter."""
    if x_owner is not None:
        check_owner("x-owner", x_owner)
    request_id: str = request.state.request_id
    keyring, rates = services.keyring, services.rates
    secret = credentials.credentials if credentials else ""
    # OpenAI's SDK wants a key of some kind. Where none is needed, another's word for one is as good as none.
    if not services.settings.needs_keys and not secret.startswith(keys.PREFIX):
        return _known(Principal(x_owner or "default", True, None, request_id))
    holder = None
    if secret:
        holder = keyring.remembered(secret) or await run_in_threadpool(keyring.find, secret)
    if holder is None:
        rates.count_wrong_key(request.client.host if request.client else "")
        raise WrongKey(_words(request, secret))
    owner = holder.owner
    if x_owner is not None and x_owner != owner:
        if not holder.admin:
            raise InvalidParameter("x-owner", x_owner, f"the key is {owner}'s; leave x-owner out")
        owner = x_owner
    rates.count(holder.owner)
    request.state.opened = Opened(secret, holder)
    return _known(Principal(owner, holder.admin, holder.key_id, request_id))


def _known(who: Principal) -> Principal:
    """From now on each line of the log has the owner."""
    structlog.contextvars.bind_contextvars(owner=who.owner)
    return who


def _words(request: Request, secret: str) -> str:
    if secret:
        return "the key is wrong, or was revoked; an admin can make another"
    if "authorization" in request.headers:
        return "Authorization: no key in it; send: Authorization: Bearer KEY"
    return "no key; send: Authorization: Bearer KEY"


Who = Annotated[Principal, Depends(_who)]


async def _admin(who: Who) -> Principal:
    """Raises AdminOnly."""
    if not who.admin:
        raise AdminOnly("this wants an admin's key")
    return who


Admin = Annotated[Principal, Depends(_admin)]
