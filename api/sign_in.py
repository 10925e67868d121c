"""Signs a browser in with a key: its cookie then opens what the key opens."""

from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from api.auth.credential import COOKIE, credential_of, holder_of, tokens_of
from api.auth.keyring import Credential, Holder
from api.auth.who import address_of, without_key
from api.context import Context, Services
from api.errors import WrongSignIn
from api.http.body import described, json_body
from api.http.json_response import json_response
from store.access import audit, sign_ins
from store.access.principal import Principal


class NewSession(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    key: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class SessionOut(BaseModel):
    owner: str | None
    """For whom requests of this browser are. Null where a key is needed and none was given."""
    admin: bool
    key_needed: bool
    """Whether requests need a key, or a sign-in with one."""
    signed_in: bool
    """Whether the browser is signed in by its cookie."""
    version: str
    """Version of the service."""


_VERSION = version("finetuned")

router = APIRouter(prefix="/session", tags=["session"])


@router.get("", response_model=SessionOut)
async def get_session(request: Request, services: Context) -> Response:
    """For whom the requests of this browser are, and whether it has to sign in. Needs no key."""
    shown = credential_of(request)
    holder = None if shown is None else await holder_of(services.keyring, shown)
    if shown is not None and holder is None and services.settings.needs_keys:
        services.rates.count_wrong_key(address_of(request))
    return _response(request, services, holder, holder is not None and shown is not None and shown.is_session)


@router.post("", response_model=SessionOut, openapi_extra=described(NewSession))
async def create_session(
    request: Request, services: Context, given: Annotated[NewSession, Depends(json_body(NewSession))]
) -> Response:
    """Signs in with a key, for 30 days. The cookie opens what the key opens, until DELETE /session or the key's
    revocation. A sign-in that the browser had before ends."""
    holder = await holder_of(services.keyring, Credential(given.key))
    if holder is None:
        services.rates.count_wrong_key(address_of(request))
        raise WrongSignIn("key: it is wrong, was revoked or has expired; an admin can make another")
    services.rates.count(holder.owner)
    token = await run_in_threadpool(_create, services, _principal(request, holder), tokens_of(request))
    response = _response(request, services, holder, signed_in=True)
    _set_cookie(request, response, token, int(sign_ins.LIFETIME.total_seconds()))
    return response


@router.delete("", status_code=HTTPStatus.NO_CONTENT)
async def delete_session(request: Request, services: Context) -> Response:
    """Signs out: the cookie opens nothing from then on. Without a sign-in it changes nothing."""
    shown = [Credential(token, is_session=True) for token in tokens_of(request)]
    holders = [holder for each in shown if (holder := await holder_of(services.keyring, each)) is not None]
    if holders:
        tokens = [each.secret for each in shown]
        await run_in_threadpool(_end, services, [_principal(request, holder) for holder in holders], tokens)
    response = Response(status_code=HTTPStatus.NO_CONTENT, headers={"cache-control": "no-store"})
    _set_cookie(request, response, "", 0)
    return response


def _create(services: Services, who: Principal, before: list[str]) -> str:
    """Makes the token, always a new one: a browser may have been given a cookie that another person knows."""
    admin_key = services.keyring.admin_key
    with services.sessions.begin() as session:
        sign_ins.end(session, before, admin_key)
        token = sign_ins.create(session, who.key_id, admin_key)
        audit.record(session, who, "session.create")
    services.keyring.forget()
    return token


def _end(services: Services, signed_in: list[Principal], tokens: list[str]) -> None:
    with services.sessions.begin() as session:
        sign_ins.end(session, tokens, services.keyring.admin_key)
        for who in signed_in:
            audit.record(session, who, "session.delete")
    services.keyring.forget()


def _principal(request: Request, holder: Holder) -> Principal:
    return Principal(holder.owner, holder.admin, holder.key_id, request.state.request_id)


def _response(request: Request, services: Services, holder: Holder | None, signed_in: bool) -> Response:
    needed = services.settings.needs_keys
    who = _principal(request, holder) if holder else None if needed else without_key(request)
    session = SessionOut(
        owner=who.owner if who else None,
        admin=who.admin if who else False,
        key_needed=needed,
        signed_in=signed_in,
        version=_VERSION,
    )
    response = json_response(session)
    response.headers["cache-control"] = "no-store"
    return response


def _set_cookie(request: Request, response: Response, token: str, max_age: int) -> None:
    # A proxy that is not among FINETUNED_TRUSTED_PROXIES hides the scheme; the browser's Origin still has it.
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    response.set_cookie(COOKIE, token, max_age, path="/", secure=secure, httponly=True, samesite="strict")
