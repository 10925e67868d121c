"""Requests to addresses that users gave: to the very address that was checked, without redirects and proxies."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

import httpx

from api.webhooks.public_address import addresses_of

CONNECT_SECONDS = 5.0  # to each of a name's addresses


def make_client(seconds: float, connections: int) -> httpx.AsyncClient:
    """A client without a pool, since a kept connection is to an address that was right for another request, and without
    the environment, since a proxy there would reach what we may not."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=0)
    timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(trust_env=False, timeout=timeout, limits=limits)


@asynccontextmanager
async def answer_to(  # parameters: those of a request
    http: httpx.AsyncClient, method: str, url: str, headers: Mapping[str, str], body: bytes, allow_private: bool
) -> AsyncIterator[httpx.Response]:
    """The unread answer. Six parameters: those of a request. Raises Forbidden, OSError, httpx.HTTPError,
    httpx.InvalidURL, UnicodeError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = await addresses_of(host, port, allow_private)
    sent = {"host": parts.netloc, "user-agent": f"finetuned/{version('finetuned')}", **headers}
    for address in addresses:
        # To the very address that was checked: the name may have another one by now.
        at = httpx.URL(url).copy_with(host=address)
        request = http.build_request(method, at, content=body, headers=sent, extensions={"sni_hostname": host})
        try:
            answer = await http.send(request, stream=True, follow_redirects=False)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address == addresses[-1]:
                raise
            continue
        try:
            yield answer
        finally:
            await answer.aclose()
        return
    raise OSError(f"{host} has no address")
