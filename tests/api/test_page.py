"""The page and its files, as a browser fetches them."""

import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import assemble, make_services
from api.background.live import Pace
from api.settings import ApiSettings
from store.session import Sessions
from tests.support.api import ADMIN_KEY, error_of

HTML = b'<!doctype html><title>finetuned</title><script type="module" src="/assets/main-1a2b.js"></script>'
SCRIPT = b'document.title = "\xe2\x9c\x93";'


@pytest.fixture
def web(tmp_path: Path) -> Path:
    (tmp_path / "web" / "assets").mkdir(parents=True)
    return tmp_path / "web"


@pytest.fixture
def browser(settings: ApiSettings, sessions: Sessions, web: Path) -> Iterator[TestClient]:
    """An API where every request wants a key, with a page of two files."""
    (web / "index.html").write_bytes(HTML)
    (web / "assets" / "main-1a2b.js").write_bytes(SCRIPT)
    (web / "assets" / "main-1a2b.js.gz").write_bytes(gzip.compress(SCRIPT))
    (web / "secret.txt").write_text("not an asset")
    keyed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN_KEY)})
    app = assemble(replace(make_services(keyed, Pace()), web=web))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:
        yield client


def test_page_needs_no_key_and_is_compared_each_time(browser: TestClient) -> None:
    answer = browser.get("/")
    assert (answer.status_code, answer.content) == (200, HTML)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"


def test_page_may_load_and_call_its_own_origin_alone(browser: TestClient) -> None:
    headers = browser.get("/").headers
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert policy.pop("img-src") == "'self' data:"
    assert {policy.pop(name) for name in ("default-src", "base-uri", "frame-ancestors")} == {"'none'"}
    assert policy.keys() == {"script-src", "style-src", "connect-src", "font-src", "form-action"}
    assert {*policy.values()} == {"'self'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_asset_is_kept_for_ever(browser: TestClient) -> None:
    answer = browser.get("/assets/main-1a2b.js", headers={"accept-encoding": "identity"})
    assert (answer.status_code, answer.content) == (200, SCRIPT)
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/assets/main-1a2b.js"])
def test_known_file_is_not_sent_again(browser: TestClient, path: str) -> None:
    first = browser.get(path)
    again = browser.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]


def test_rebuilt_page_of_same_size_and_time_is_sent_again(browser: TestClient, web: Path) -> None:
    etag = browser.get("/").headers["etag"]
    times = (web / "index.html").stat()
    (web / "index.html").write_bytes(HTML.replace(b"1a2b", b"3c4d"))
    os.utime(web / "index.html", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert browser.get("/", headers={"if-none-match": etag}).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("", False),
    ],
)
def test_asset_is_sent_compressed_where_that_is_accepted(browser: TestClient, accepted: str, compressed: bool) -> None:
    answer = browser.get("/assets/main-1a2b.js", headers={"accept-encoding": accepted})
    assert answer.content == SCRIPT
    assert (answer.headers.get("content-encoding") == "gzip") is compressed
    assert answer.headers["vary"] == "accept-encoding"
    other = browser.get("/assets/main-1a2b.js", headers={"accept-encoding": "br" if compressed else "gzip"})
    assert other.headers["etag"] != answer.headers["etag"]


@pytest.mark.parametrize("path", ["/", "/assets/main-1a2b.js"])
def test_head_tells_what_get_would_send(browser: TestClient, path: str) -> None:
    got, head = browser.get(path), browser.head(path)
    assert (head.status_code, head.content) == (200, b"")
    same = ("content-length", "content-type", "etag", "cache-control", "content-security-policy")
    assert [head.headers[name] for name in same] == [got.headers[name] for name in same]


@pytest.mark.parametrize(
    "name", ["none.js", "..%2findex.html", "%2e%2e/secret.txt", "..%2fsecret.txt", ".hidden", "a%00b"]
)
def test_other_files_of_the_server_are_no_assets(browser: TestClient, name: str) -> None:
    answer = browser.get(f"/assets/{name}")
    error_of(answer, 404, "not_found")
    assert "immutable" not in answer.headers.get("cache-control", "")


def test_missing_page_says_how_to_build_it(settings: ApiSettings, sessions: Sessions, web: Path) -> None:
    with TestClient(assemble(replace(make_services(settings, Pace()), web=web)), base_url="http://127.0.0.1") as client:
        assert "npm --prefix web run build" in error_of(client.get("/"), 404, "not_found")["message"]


def test_page_answers_to_no_foreign_host_name_on_loopback(browser: TestClient) -> None:
    error_of(browser.get("/", headers={"host": "evil.example"}), 403, "origin_not_allowed")
