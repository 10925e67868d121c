"""Sends bytes of the storage, whole or in part, so that an interrupted download can continue (RFC 9110, 13 and 14)."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from itertools import chain
from urllib.parse import quote

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from api.errors import RangeOutside

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII)


@dataclass(frozen=True)
class Content:
    size: int
    sha256: str
    """SHA-256 of the whole content, or another tag that changes with it."""
    name: str
    """Name of the file that a browser saves."""
    media_type: str
    read: Callable[[int, int], Iterator[bytes]]
    """Reads from one offset up to another."""

    @property
    def etag(self) -> str:
        return f'"{self.sha256}"'


def hand_out(request: Request, content: Content) -> Response:
    """The part of the content that the request's headers select. Raises RangeOutside, and what reading the first bytes
    raises."""
    headers = {
        "etag": content.etag,
        "accept-ranges": "bytes",
        "content-disposition": f"attachment; filename*=utf-8''{quote(content.name)}"
        if not content.name.isascii() or '"' in content.name
        else f'attachment; filename="{content.name}"',
    }
    if is_known(request.headers.get("if-none-match"), content.etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    part = _part(request, content)
    start, end = part or (0, content.size)
    headers["content-length"] = str(end - start)
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{content.size}"
    status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    chunks = content.read(start, end)
    # A missing file is reported before the first header; afterwards it could not be.
    chunks = chain([next(chunks)], chunks)
    return StreamingResponse(_ahead(chunks), status, headers, content.media_type)


async def _ahead(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Reads the next piece in a thread while one is sent."""
    reading = asyncio.create_task(run_in_threadpool(next, chunks, None))
    try:
        while (chunk := await reading) is not None:
            reading = asyncio.create_task(run_in_threadpool(next, chunks, None))
            yield chunk
    finally:
        reading.cancel()


def is_known(given: str | None, etag: str) -> bool:
    return given is not None and (given.strip() == "*" or etag in re.findall(r'"[^"]*"', given))


def _part(request: Request, content: Content) -> tuple[int, int] | None:
    """None for the whole content: also for several ranges, for a malformed one, and for a range of another version."""
    requested = _ONE_RANGE.fullmatch(request.headers.get("range", ""))
    if requested is None or request.method != "GET" or request.headers.get("if-range", content.etag) != content.etag:
        return None
    first, last = requested.groups()
    if not first and not last:
        return None
    if first:
        start, end = int(first), min(int(last) + 1, content.size) if last else content.size
        if last and int(last) < int(first):
            return None
    else:
        start, end = max(0, content.size - int(last)), content.size
    if start >= end:
        raise RangeOutside(content.size, request.headers["range"])
    return start, end
