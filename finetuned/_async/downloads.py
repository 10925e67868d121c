"""Downloads a file in pieces: an interrupted download continues, within a call and at the next one."""

import hashlib
import secrets
from http import HTTPStatus
from pathlib import Path

import httpx

from finetuned.errors import Damaged, Unreachable, error_of
from finetuned.pauses import pause_async

_PAUSES_SECONDS = (0.2, 1.0, 2.0, 4.0)


async def download_async(http: httpx.AsyncClient, path: str, file: Path) -> None:
    """Writes the body of `path` to `file`, which is complete or absent. What was received stays in a hidden file
    beside it until the download is complete. Raises ServiceError, OSError."""
    for seconds in (*_PAUSES_SECONDS, None):
        try:
            partial, sha256 = await _fetch_rest(http, path, file)
            break
        except httpx.TransportError as error:
            if seconds is None or isinstance(error, httpx.ConnectError):
                raise Unreachable(str(http.base_url).rstrip("/"), error) from error
            await pause_async(seconds)
    try:
        if sha256 is not None and _sha256(partial) != sha256:
            raise Damaged(f"{path} arrived with other bytes than the service has; try again")
        partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)


async def _fetch_rest(http: httpx.AsyncClient, path: str, file: Path) -> tuple[Path, str | None]:
    """Fetches the bytes that the partial file does not have yet. Gives that file, and the SHA-256 that the service
    states for the whole, if any."""
    async with http.stream("GET", path) as response:
        await _raise_for_error(response)
        sha256 = response.headers.get("etag", "").strip('"') or None
        partial = file.with_name(f".{file.name}.{(sha256 or secrets.token_hex(8))[:16]}.partial")
        received = partial.stat().st_size if partial.exists() else 0
        if received == 0:
            await _append(response, partial)
            return partial, sha256
        complete = received == int(response.headers["content-length"])
    if not complete:
        headers = {"range": f"bytes={received}-", "if-range": f'"{sha256}"'}
        async with http.stream("GET", path, headers=headers) as response:
            await _raise_for_error(response)
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                partial.unlink()
            await _append(response, partial)
    return partial, sha256


async def _raise_for_error(response: httpx.Response) -> None:
    if not response.is_success:
        await response.aread()
        raise error_of(response)


async def _append(response: httpx.Response, file: Path) -> None:
    with file.open("ab") as output:
        async for chunk in response.aiter_raw():  # raw: a buffer's content would be lost when the connection breaks
            output.write(chunk)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
