"""The dashboard: its built page at / and the page's files below /assets.

`npm --prefix web run build` writes the files. The name of an asset has a hash of its content, so a browser keeps it for
ever; the page itself is compared by its ETag on each visit. Beside an asset may lie NAME.gz, the same bytes compressed.
"""

import hashlib
import mimetypes
import re
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.context import Context
from api.errors import PageNotFound
from api.http.ranges import is_known

FOLDER = Path(__file__).parent / "web"

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".json": "application/json"}
"""The machine's own table may know other types for these."""

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
def get_page(request: Request, services: Context) -> Response:
    """The page. It needs no key: it shows nothing before it has read from the API."""
    file = services.web / "index.html"
    if not file.is_file():
        raise PageNotFound("the page was not built; run: npm --prefix web run build")
    return _respond(request, file, "no-cache")


@router.api_route("/assets/{name}", methods=["GET", "HEAD"])
def get_asset(request: Request, services: Context, name: str) -> Response:
    file = services.web / "assets" / name
    if not _NAME.fullmatch(name) or not file.is_file():
        raise PageNotFound("the page has no such file; load the page again")
    return _respond(request, file, _FOR_EVER)


def _respond(request: Request, file: Path, cache: str) -> Response:
    compressed = file.with_name(f"{file.name}.gz")
    varies = compressed.is_file()
    gzipped = varies and _takes_gzip(request.headers.get("accept-encoding", ""))
    content = (compressed if gzipped else file).read_bytes()
    # Of the bytes: the files of a reproducible build all have one time, and index.html keeps its size as well.
    etag = f'"{hashlib.sha256(content).hexdigest()}"'
    headers = {**SECURITY, "cache-control": cache, "etag": etag}
    if varies:
        headers["vary"] = "accept-encoding"
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if gzipped:
        headers["content-encoding"] = "gzip"
    if request.method == "HEAD":
        headers["content-length"] = str(len(content))
        content = b""
    return Response(content, headers=headers, media_type=_media_type(file))


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with the weight 0."""
    codings = (each.replace(" ", "").lower().partition(";q=") for each in accepted.split(","))
    return any(name in ("gzip", "*") and (not weight or weight.strip("0.") != "") for name, _, weight in codings)


def _media_type(file: Path) -> str:
    return _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
