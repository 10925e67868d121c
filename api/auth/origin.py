"""Keeps web pages out. Without keys, any page could make a browser on this machine send requests here."""

from urllib.parse import urlsplit

from fastapi import Request

from api.context import Context
from api.errors import OriginNotAllowed
from api.settings import is_loopback
from contract.formatting import format_value

_READS = {"GET", "HEAD", "OPTIONS"}


async def refuse_foreign(request: Request, services: Context) -> None:
    """Raises OriginNotAllowed. Programs other than browsers send none of these headers except Host."""
    settings = services.settings
    host = request.headers.get("host", "")
    # A page may have pointed its own name here (DNS rebinding): a browser then thinks that it and we are one.
    if host and is_loopback(settings.host) and not is_loopback(_hostname(f"//{host}")):
        raise OriginNotAllowed(
            f"Host: got {format_value(host)}; the API listens on {settings.host} alone, and answers to localhost and "
            "to 127.0.0.1; a proxy in front of it has to send one of these as Host"
        )
    if request.method not in _READS and not is_same_origin(request):
        raise OriginNotAllowed("a web page of another origin may not change anything here; use the API from a program")


def is_same_origin(request: Request) -> bool:
    """As Go's http.CrossOriginProtection decides: by Sec-Fetch-Site, else by comparing Origin with Host."""
    site, origin, host = (request.headers.get(name) for name in ("sec-fetch-site", "origin", "host"))
    if site is not None:
        return site in ("same-origin", "none")
    return origin is None or origin.partition("://")[2] == host


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
