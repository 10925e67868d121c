"""What a request shows: a key in Authorization, or the cookie of a browser that is signed in."""

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security.utils import get_authorization_scheme_param

from api.auth.keyring import Credential, Holder, Keyring
from api.auth.origin import is_same_origin
from api.errors import OriginNotAllowed

COOKIE = "finetuned_session"


def credential_of(request: Request) -> Credential | None:
    """None without any. Authorization takes precedence. Raises OriginNotAllowed."""
    if (given := request.headers.get("authorization")) is not None:
        scheme, secret = get_authorization_scheme_param(given)
        return Credential(secret) if scheme.lower() == "bearer" and secret else None
    tokens = tokens_of(request)
    # Another program on this host name, or on a subdomain, can add a cookie: nobody knows then which one is ours.
    if len(tokens) != 1:
        return None
    # A browser sends the cookie to all ports of a host name, so pages of other ports are kept from reading too.
    if not is_same_origin(request):
        raise OriginNotAllowed("a web page of another origin may not use the sign-in of this one")
    return Credential(tokens[0], is_session=True)


def tokens_of(request: Request) -> list[str]:
    pairs = (pair.strip().partition("=") for header in request.headers.getlist("cookie") for pair in header.split(";"))
    return [value for name, _, value in pairs if name == COOKIE and value]


async def holder_of(keyring: Keyring, shown: Credential) -> Holder | None:
    return keyring.remembered(shown) or await run_in_threadpool(keyring.find, shown)
