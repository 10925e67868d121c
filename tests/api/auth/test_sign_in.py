"""Browsers sign in with a key. Each test's client keeps its cookies, as a browser does."""

import re
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.background.open_requests import OpenRequests
from api.settings import ApiSettings
from finetuned import __version__
from store.session import Sessions
from tests.support.api import ADMIN_KEY, Response, bearer, error_of, make_key, serve

COOKIE = "finetuned_session"
ANNA = {"owner": "anna", "admin": False, "key_needed": True, "signed_in": True, "version": __version__}
NOBODY = {"owner": None, "admin": False, "key_needed": True, "signed_in": False, "version": __version__}


@pytest.fixture
def key(locked: TestClient) -> dict[str, Any]:
    return make_key(locked, owner="anna")


@pytest.fixture
def anna(locked: TestClient, key: dict[str, Any]) -> TestClient:
    sign_in(locked, key["secret"])
    return locked


def sign_in(client: TestClient, secret: str, **headers: str) -> Response:
    return client.post("/session", json={"key": secret}, headers=headers)


def test_cookie_opens_what_the_key_opens(locked: TestClient, key: dict[str, Any]) -> None:
    assert locked.get("/session").json() == NOBODY
    error_of(locked.get("/jobs"), 401, "invalid_api_key")
    answer = sign_in(locked, key["secret"])
    assert (answer.status_code, answer.json()) == (200, ANNA)
    assert locked.get("/session").json() == ANNA
    assert locked.get("/jobs").status_code == 200
    error_of(locked.get("/keys"), 403, "admin_only")


def test_admin_key_of_the_settings_signs_in(locked: TestClient) -> None:
    assert sign_in(locked, ADMIN_KEY).json() == {**ANNA, "owner": "admin", "admin": True}
    assert locked.get("/keys").status_code == 200


def test_another_admin_key_in_the_settings_ends_its_sign_ins(settings: ApiSettings, locked: TestClient) -> None:
    sign_in(locked, ADMIN_KEY)
    changed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN_KEY[::-1])})
    with serve(changed) as client:
        client.cookies = locked.cookies
        error_of(client.get("/jobs"), 401, "invalid_api_key")
        assert client.get("/session").json() == NOBODY


def test_cookie_is_kept_from_scripts_and_other_sites(locked: TestClient, key: dict[str, Any]) -> None:
    answer = sign_in(locked, key["secret"])
    _, *attributes = answer.headers["set-cookie"].split("; ")
    assert {*attributes} == {"HttpOnly", "Max-Age=2592000", "Path=/", "SameSite=strict"}
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("origin", "trusted", "secure"),
    [(None, "testclient", True), ("https://127.0.0.1:8000", None, True), ("http://127.0.0.1:8000", None, False)],
)
def test_cookie_of_https_is_never_sent_over_http(
    settings: ApiSettings, sessions: Sessions, origin: str | None, trusted: str | None, secure: bool
) -> None:
    """As the browser's Origin says, or a request that uvicorn has given the scheme of a trusted proxy."""
    keyed = settings.model_copy(update={"require_keys": True, "admin_key": SecretStr(ADMIN_KEY)})
    with serve(keyed) as client:
        url = "https://127.0.0.1:8000/session" if trusted else "/session"
        answer = client.post(url, json={"key": ADMIN_KEY}, headers={"origin": origin} if origin else {})
    assert ("Secure" in answer.headers["set-cookie"].split("; ")) is secure


def test_wrong_key_signs_nobody_in(locked: TestClient) -> None:
    answer = sign_in(locked, "sk-ft-wrong")
    error = error_of(answer, 401, "wrong_key")
    assert error["param"] == "key"
    assert "sk-ft-wrong" not in answer.text
    assert "set-cookie" not in answer.headers


def test_wrong_keys_are_counted_however_they_are_tried(locked: TestClient) -> None:
    for number in range(20):
        sign_in(locked, f"wrong-{number}")
        locked.get("/session", headers=bearer(f"wrong-{number}"))
        locked.get("/jobs", headers=bearer(f"wrong-{number}"))
    error_of(sign_in(locked, "wrong"), 429, "rate_limit_exceeded")
    error_of(locked.get("/session", headers=bearer("wrong")), 429, "rate_limit_exceeded")
    assert sign_in(locked, ADMIN_KEY).status_code == 200


def test_signing_out_ends_the_cookie_here_and_elsewhere(anna: TestClient) -> None:
    token = anna.cookies[COOKIE]
    answer = anna.delete("/session")
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert anna.get("/session").json() == NOBODY
    anna.cookies.set(COOKIE, token)
    error_of(anna.get("/jobs"), 401, "invalid_api_key")
    assert anna.delete("/session").status_code == 204


def test_revoked_key_ends_its_sign_ins(anna: TestClient, key: dict[str, Any]) -> None:
    anna.delete(f"/keys/{key['id']}", headers=bearer(ADMIN_KEY)).raise_for_status()
    error_of(anna.get("/jobs"), 401, "invalid_api_key")


def test_sign_in_has_an_end_and_is_deleted_then(anna: TestClient, engine: sa.Engine, sessions: Sessions) -> None:
    ends = "SELECT ends_at - now() BETWEEN interval '29 days' AND interval '30 days' FROM sessions"
    with engine.begin() as connection:
        assert connection.scalars(sa.text(ends)).all() == [True]
        connection.execute(sa.text("UPDATE sessions SET ends_at = now()"))
    sign_in(anna, ADMIN_KEY)  # forgets what was remembered
    OpenRequests(sessions, timedelta(0).total_seconds())._renew()
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM sessions WHERE ends_at <= now()")) == 0


def test_token_is_stored_nowhere(anna: TestClient, engine: sa.Engine) -> None:
    with engine.connect() as connection:
        for table in ("sessions", "audit"):
            rows = connection.execute(sa.text(f"SELECT * FROM {table}")).all()
            assert rows
            assert anna.cookies[COOKIE] not in str(rows)


def test_signing_in_and_out_is_audited(anna: TestClient, key: dict[str, Any]) -> None:
    anna.delete("/session")
    latest = anna.get("/audit?limit=2", headers=bearer(ADMIN_KEY)).json()["data"]
    reported = [(entry["owner"], entry["key_id"], entry["action"], entry["target"]) for entry in latest]
    assert reported == [("anna", key["id"], action, None) for action in ("session.delete", "session.create")]


def test_secrets_are_not_logged(locked: TestClient, key: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        sign_in(locked, key["secret"])
        sign_in(locked, "sk-ft-mistyped")
        locked.get("/jobs")
        locked.delete("/session")
    logged = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "/session" in logged
    assert key["secret"] not in logged
    assert "sk-ft-mistyped" not in logged


def test_signing_in_ends_the_sign_in_before(anna: TestClient, key: dict[str, Any]) -> None:
    before = anna.cookies[COOKIE]
    sign_in(anna, key["secret"])
    assert anna.cookies[COOKIE] != before
    other = {"cookie": f"{COOKIE}={before}"}
    anna.cookies.clear()
    error_of(anna.get("/jobs", headers=other), 401, "invalid_api_key")


def test_cookie_of_another_person_is_never_adopted(locked: TestClient, key: dict[str, Any]) -> None:
    """Session fixation: whoever sets a cookie before knows nothing of the one that signing in makes."""
    locked.cookies.set(COOKIE, "known-to-another")
    answer = sign_in(locked, key["secret"])
    token = re.match(rf"{COOKIE}=([^;]+)", answer.headers["set-cookie"])
    assert token is not None
    assert len(token[1]) >= 43
    locked.cookies.clear()
    error_of(locked.get("/jobs", headers={"cookie": f"{COOKIE}=known-to-another"}), 401, "invalid_api_key")


def test_two_cookies_of_the_name_open_nothing(anna: TestClient, locked: TestClient) -> None:
    """A program on another port, or on a subdomain, can add a cookie, but not take the browser over with it."""
    own = anna.cookies[COOKIE]
    anna.cookies.clear()
    tossed = {"cookie": f"{COOKIE}=tossed; other=1; {COOKIE}={own}"}
    assert "more than once" in error_of(anna.get("/jobs", headers=tossed), 401, "invalid_api_key")["message"]
    assert anna.get("/session", headers=tossed).json() == NOBODY
    # Signing out ends the own one all the same.
    assert anna.delete("/session", headers=tossed).status_code == 204
    error_of(anna.get("/jobs", headers={"cookie": f"{COOKIE}={own}"}), 401, "invalid_api_key")


FOREIGN = [
    {"origin": "http://evil.example"},
    {"origin": "http://127.0.0.1:9000"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:9000"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_page_of_another_origin_cannot_use_the_sign_in(anna: TestClient, headers: dict[str, str]) -> None:
    for method, path in [("GET", "/jobs"), ("POST", "/jobs"), ("DELETE", "/session"), ("GET", "/session")]:
        error_of(anna.request(method, path, headers=headers), 403, "origin_not_allowed")
    assert anna.get("/session").json() == ANNA


@pytest.mark.parametrize("headers", FOREIGN)
def test_page_of_another_origin_cannot_sign_in(
    locked: TestClient, key: dict[str, Any], headers: dict[str, str]
) -> None:
    """Login CSRF: it would have a person work for the attacker's owner."""
    answer = sign_in(locked, key["secret"], **headers)
    error_of(answer, 403, "origin_not_allowed")
    assert "set-cookie" not in answer.headers


def test_our_own_page_uses_the_sign_in(anna: TestClient) -> None:
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert anna.get("/jobs", headers=own).status_code == 200
    assert anna.delete("/session", headers=own).status_code == 204


def test_authorization_takes_precedence_over_the_cookie(anna: TestClient) -> None:
    assert anna.get("/session", headers=bearer(ADMIN_KEY)).json() == {
        **ANNA,
        "owner": "admin",
        "admin": True,
        "signed_in": False,
    }
    error_of(anna.get("/jobs", headers=bearer("sk-ft-wrong")), 401, "invalid_api_key")
    error_of(anna.get("/jobs", headers={"authorization": "Basic abc"}), 401, "invalid_api_key")


def test_key_is_no_cookie_and_token_no_key(anna: TestClient, key: dict[str, Any]) -> None:
    token = anna.cookies[COOKIE]
    anna.cookies.clear()
    error_of(anna.get("/jobs", headers=bearer(token)), 401, "invalid_api_key")
    error_of(anna.get("/jobs", headers={"cookie": f"{COOKIE}={key['secret']}"}), 401, "invalid_api_key")
    error_of(anna.get("/jobs", headers={"cookie": f"{COOKIE}={ADMIN_KEY}"}), 401, "invalid_api_key")


@pytest.fixture
def unlocked(client: TestClient) -> TestClient:
    client.cookies.set(COOKIE, "of-another-service-on-this-host")
    return client


def test_nobody_has_to_sign_in_where_no_key_is_needed(unlocked: TestClient) -> None:
    """Not with the cookie of another service on this host name either."""
    free = {"owner": "default", "admin": True, "key_needed": False, "signed_in": False, "version": __version__}
    assert unlocked.get("/session").json() == free
    assert unlocked.get("/jobs").status_code == 200
