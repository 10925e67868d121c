"""Who sends a request: by its key or its sign-in, or without one on a machine of one's own."""

from typing import Annotated

import structlog
from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.auth.credential import COOKIE, credential_of, holder_of, tokens_of
from api.auth.key_check import Opened
from api.auth.owner import check_owner
from api.context import Context
from api.errors import AdminOnly, InvalidParameter, WrongKey
from contract import patterns
from store.access import keys
from store.access.principal import Principal

_bearer = HTTPBearer(
    auto_error=False,
    description="A key; a browser may sign in with it by POST /session. On loopback none is needed, unless "
    "FINETUNED_REQUIRE_KEYS says so.",
)


async def _who(
    request: Request,
    services: Context,
    _: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    x_owner: Annotated[
        str | None, Header(json_schema_extra={"pattern": patterns.OWNER, "maxLength": patterns.LONGEST_OWNER})
    ] = None,
) -> Principal:
    """An admin may act for another owner, named in the header x-owner. Raises WrongKey, TooManyRequests,
    InvalidParameter."""
    if x_owner is not None:
        check_owner("x-owner", x_owner)
    shown = credential_of(request)
    needs_key = services.settings.needs_keys
    # OpenAI's SDK wants a key of some kind. Where none is needed, any text will do for one.
    if not needs_key and (shown is None or not (shown.is_session or shown.secret.startswith(keys.PREFIX))):
        return _known(without_key(request, x_owner))
    holder = None if shown is None else await holder_of(services.keyring, shown)
    if shown is None or holder is None:
        if not needs_key and shown is not None and shown.is_session:  # perhaps of another service on this host name
            return _known(without_key(request, x_owner))
        services.rates.count_wrong_key(address_of(request))
        raise WrongKey(_words(request))
    owner = holder.owner
    if x_owner is not None and x_owner != owner:
        if not holder.admin:
            raise InvalidParameter("x-owner", x_owner, f"the key is {owner}'s; leave x-owner out")
        owner = x_owner
    services.rates.count(holder.owner)
    request.state.opened = Opened(shown, holder)
    return _known(Principal(owner, holder.admin, holder.key_id, request.state.request_id))


def _known(who: Principal) -> Principal:
    """From now on each line of the log has the owner."""
    structlog.contextvars.bind_contextvars(owner=who.owner)
    return who


def without_key(request: Request, x_owner: str | None = None) -> Principal:
    """Whoever is on this machine, where no key is needed."""
    return Principal(x_owner or "default", True, None, request.state.request_id)


def address_of(request: Request) -> str:
    return request.client.host if request.client else ""


def _words(request: Request) -> str:
    if "authorization" not in request.headers:
        tokens = tokens_of(request)
        if len(tokens) > 1:
            return f"the cookie {COOKIE} came more than once; delete the cookies of this host name and sign in again"
        return "the sign-in has ended; sign in again" if tokens else "no key; send: Authorization: Bearer KEY"
    if credential_of(request) is None:
        return "Authorization: no key in it; send: Authorization: Bearer KEY"
    return "the key is wrong, was revoked or has expired; an admin can make another"


Who = Annotated[Principal, Depends(_who)]


async def _admin(who: Who) -> Principal:
    """Raises AdminOnly."""
    if not who.admin:
        raise AdminOnly("this wants an admin's key")
    return who


Admin = Annotated[Principal, Depends(_admin)]
