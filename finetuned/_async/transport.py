"""Requests to one service, repeated where that is safe."""

import json
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from finetuned.address import DEFAULT_URL, is_loopback
from finetuned.errors import Refused, UnexpectedAnswer, Unreachable, error_of
from finetuned.pauses import pause_async

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 8.0
_LONGEST_RETRY_AFTER_SECONDS = 30.0
_UNAVAILABLE = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


class AsyncTransport:
    def __init__(self, url: str | None, key: str | None, owner: str | None, timeout: float, max_retries: int) -> None:
        self.url = (url or os.environ.get("FINETUNED_URL") or DEFAULT_URL).rstrip("/")
        self.key = key or os.environ.get("FINETUNED_API_KEY") or None
        owner = os.environ.get("FINETUNED_OWNER") or None if owner is None else owner
        self.max_retries = max_retries
        # Bytes, so that the service and not httpx refuses text that does not fit into a header.
        headers = {} if owner is None else {b"x-owner": owner.encode()}
        if self.key is not None:
            headers[b"authorization"] = b"Bearer " + self.key.encode()
        # A proxy cannot reach a service on this machine.
        proxies = not is_loopback(urlsplit(self.url).hostname or "")
        self.http = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout, trust_env=proxies)

    async def send(
        self, method: str, path: str, rewind: Callable[[], object] = lambda: None, **options: Any
    ) -> httpx.Response:
        """Sends a request, again if its answer was lost or says so; `rewind` makes a body readable once more.

        A POST has an idempotency key, so that the service does it once. Raises Refused, Unreachable.
        """
        if method == "POST":
            options["headers"] = {"idempotency-key": secrets.token_hex(16)} | options.get("headers", {})
        for attempt in range(self.max_retries + 1):
            rewind()
            seconds = min(_FIRST_PAUSE_SECONDS * 2**attempt, _LONGEST_PAUSE_SECONDS) * random.uniform(0.8, 1.2)
            last = attempt == self.max_retries
            try:
                response = await self.http.request(method, path, **options)
            except httpx.TransportError as error:
                if last:
                    raise Unreachable(self.url, error) from error
            except httpx.InvalidURL as error:
                raise Unreachable(self.url, error) from error
            else:
                if response.is_success:
                    return response
                error_found = error_of(response)
                retry_after = _retry_after(response)
                if last or not _is_temporary(error_found, retry_after):
                    raise error_found
                seconds = seconds if retry_after is None else retry_after
            await pause_async(seconds)
        raise AssertionError("the last attempt returns or raises")

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = await self.send(method, path, **options)
        try:
            answer = response.json()
        except ValueError as error:
            raise UnexpectedAnswer(f"{response.request.url} answered, and not as a finetuned service does") from error
        if not isinstance(answer, dict):
            raise UnexpectedAnswer(f"{response.request.url} answered with JSON that is no object")
        return answer

    async def pages(self, path: str, cursor: str = "id", **params: Any) -> AsyncIterator[dict[str, Any]]:
        """Yields the objects of a list, and reads further pages as they are needed, each after the last one's field
        `cursor`."""
        while True:
            page = await self.json("GET", path, params={"limit": 100, **params})
            for each in page["data"]:
                yield each
            if not page.get("has_more") or not page["data"]:
                return
            params["after"] = page["data"][-1][cursor]


def _is_temporary(error: Refused, retry_after: float | None) -> bool:
    if retry_after is not None and retry_after > _LONGEST_RETRY_AFTER_SECONDS:
        return False
    if error.status == HTTPStatus.TOO_MANY_REQUESTS:  # without a time it is a quota, which waiting does not lift
        return retry_after is not None
    return error.status in _UNAVAILABLE or error.code == "request_in_progress"


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def recipe_body(recipe: dict[str, Any] | bytes) -> dict[str, Any]:
    content = recipe if isinstance(recipe, bytes) else json.dumps(recipe).encode()
    return {"content": content, "headers": {"content-type": "application/json"}}


def part(value: str) -> str:
    """`value` as one part of a path."""
    return quote(value, safe="")
