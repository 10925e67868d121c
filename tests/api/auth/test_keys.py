"""Keys: who may come in, and as whom."""

import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.auth.keyring import Credential, Keyring
from api.auth.rates import Rates
from api.errors import TooManyRequests
from store.access.keys import digest
from store.session import Sessions
from tests.support.api import ADMIN_KEY, bearer, make_key
from tests.support.waiting import until


def test_locked_api_reveals_nothing_without_a_key(locked: TestClient) -> None:
    answer = locked.get("/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.get("/jobs", headers={"authorization": "Basic abc"}).status_code == 401


def test_key_opens_until_it_is_revoked(locked: TestClient) -> None:
    key = make_key(locked, owner="anna", name="laptop")
    assert locked.get("/jobs", headers=bearer(key["secret"])).status_code == 200
    revoked = locked.delete(f"/keys/{key['id']}", headers=bearer(ADMIN_KEY)).json()
    assert revoked["revoked_at"]
    assert locked.delete(f"/keys/{key['id']}", headers=bearer(ADMIN_KEY)).json() == revoked
    answer = locked.get("/jobs", headers=bearer(key["secret"]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


def test_key_revoked_while_it_is_read_is_not_remembered(
    locked: TestClient, engine: sa.Engine, sessions: Sessions
) -> None:
    key = make_key(locked, owner="anna")
    keyring, shown = Keyring(sessions, ADMIN_KEY), Credential(key["secret"])

    def revoke(_connection: sa.Connection) -> None:
        locked.delete(f"/keys/{key['id']}", headers=bearer(ADMIN_KEY)).raise_for_status()
        keyring.forget()

    sa.event.listen(engine, "commit", revoke, once=True)
    assert keyring.find(shown) is not None  # it was valid when it was read
    assert keyring.remembered(shown) is None
    assert keyring.find(shown) is None


def test_key_opens_until_it_expires(locked: TestClient, engine: sa.Engine) -> None:
    end = datetime.now(UTC) + timedelta(days=30)
    key = make_key(locked, owner="anna", expires_at=end.isoformat())
    assert datetime.fromisoformat(key["expires_at"]) == end
    assert locked.get("/jobs", headers=bearer(key["secret"])).status_code == 200
    locked.post("/session", json={"key": key["secret"]}).raise_for_status()
    assert locked.get("/session").json()["signed_in"]
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE keys SET expires_at = now()"))
    until(lambda: locked.get("/jobs", headers=bearer(key["secret"])).status_code == 401)
    until(lambda: not locked.get("/session").json()["signed_in"])
    answer = locked.post("/session", json={"key": key["secret"]})
    assert "has expired" in answer.json()["error"]["message"]


@pytest.mark.parametrize("given", ["2020-01-01T00:00:00Z", "2126-01-01T00:00:00", "tomorrow", 5])
def test_expiry_that_is_no_future_time_is_named(client: TestClient, given: Any) -> None:
    answer = client.post("/keys", json={"owner": "anna", "expires_at": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "expires_at")


def test_secret_is_told_once_and_kept_nowhere(locked: TestClient, engine: sa.Engine) -> None:
    key = make_key(locked, owner="anna")
    (listed,) = locked.get("/keys", headers=bearer(ADMIN_KEY)).json()["data"]
    assert "secret" not in listed
    assert key["secret"].endswith(listed["hint"])
    with engine.connect() as connection:
        for table in ("keys", "audit", "requests"):
            rows = connection.execute(sa.text(f"SELECT * FROM {table}")).all()
            assert rows
            assert key["secret"] not in str(rows)


def test_secrets_are_compared_by_digest_in_constant_time(
    locked: TestClient, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(locked, owner="anna")
    sent = [ADMIN_KEY, f"{ADMIN_KEY[:-1]}x", key["secret"], f"{key['secret'][:-1]}~", "x"]
    compared: list[tuple[str, str]] = []
    requested: list[str] = []

    def compare(one: str, other: str, safely: Callable[[str, str], bool] = hmac.compare_digest) -> bool:
        compared.append((one, other))
        return safely(one, other)

    def ask(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM keys" in statement:
            requested.append(str(parameters))

    monkeypatch.setattr(hmac, "compare_digest", compare)
    sa.event.listen(sa.Engine, "before_cursor_execute", ask)
    try:
        statuses = [locked.get("/jobs", headers=bearer(secret)).status_code for secret in sent]
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", ask)
    assert statuses == [200, 401, 200, 401, 401]
    assert compared == [(digest(secret), digest(ADMIN_KEY)) for secret in sent]
    assert [digest(secret) in parameters for secret, parameters in zip(sent[1:], requested, strict=True)] == [True] * 4
    assert not any(secret in parameters for secret in sent[:-1] for parameters in requested)


def test_repeated_key_request_creates_no_second_key(locked: TestClient) -> None:
    headers = {**bearer(ADMIN_KEY), "idempotency-key": "one"}
    first = locked.post("/keys", json={"owner": "anna"}, headers=headers).json()
    second = locked.post("/keys", json={"owner": "anna"}, headers=headers).json()
    assert second == {**first, "secret": None}


def test_only_an_admin_makes_lists_and_revokes_keys(locked: TestClient) -> None:
    key = make_key(locked, owner="anna")
    mine = bearer(key["secret"])
    for answer in (
        locked.get("/keys", headers=mine),
        locked.post("/keys", json={"owner": "anna"}, headers=mine),
        locked.delete(f"/keys/{key['id']}", headers=mine),
        locked.get("/audit", headers=mine),
        locked.get("/quotas/anna", headers=mine),
        locked.put("/quotas/anna", json={}, headers=mine),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_only")
    boss = bearer(make_key(locked, owner="boss", admin=True)["secret"])
    assert {each["owner"] for each in locked.get("/keys", headers=boss).json()["data"]} == {"anna", "boss"}
    assert [each["owner"] for each in locked.get("/keys?owner=anna", headers=boss).json()["data"]] == ["anna"]


def test_keys_are_listed_in_pages_newest_first(locked: TestClient) -> None:
    made = [make_key(locked, owner=f"owner-{number}")["id"] for number in range(3)]
    first = locked.get("/keys?limit=2", headers=bearer(ADMIN_KEY)).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (made[:0:-1], True)
    rest = locked.get(f"/keys?limit=2&after={made[1]}", headers=bearer(ADMIN_KEY)).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (made[:1], False)


@pytest.mark.parametrize("owner", ["", "a b", "a/b", "ånna", "x" * 101, "." * 2, ".", "a" + "." * 100, 7, None])
def test_key_wants_an_owner_with_a_name(locked: TestClient, owner: Any) -> None:
    answer = locked.post("/keys", json={"owner": owner}, headers=bearer(ADMIN_KEY))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "owner")


def test_owner_of_dots_alone_is_refused(locked: TestClient) -> None:
    for answer in (
        locked.get("/jobs", headers={**bearer(ADMIN_KEY), "x-owner": ".."}),
        locked.get("/jobs?owner=..", headers=bearer(ADMIN_KEY)),
        locked.put("/quotas/%2e%2e%2e", json={}, headers=bearer(ADMIN_KEY)),
    ):
        assert answer.status_code == 422, answer.text
    assert make_key(locked, owner="..a.")["owner"] == "..a."


@pytest.mark.parametrize("first", [ADMIN_KEY, "sk-ft-wrong", ""])
def test_two_keys_in_one_request_are_refused(locked: TestClient, client: TestClient, first: str) -> None:
    two = [("authorization", f"Bearer {first}"), ("authorization", f"Bearer {ADMIN_KEY}")]
    for api in (locked, client):
        answer = api.get("/jobs", headers=two)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    owners = [*bearer(ADMIN_KEY).items(), ("x-owner", "anna"), ("X-Owner", "bob")]
    assert locked.get("/jobs", headers=owners).status_code == 400
    assert locked.get("/jobs", headers=bearer(f"{ADMIN_KEY}, Bearer {ADMIN_KEY}")).status_code == 401


def test_api_description_is_keyed_and_loads_no_scripts(locked: TestClient, client: TestClient) -> None:
    assert locked.get("/openapi.json").status_code == 401
    assert locked.get("/openapi.json", headers=bearer(ADMIN_KEY)).json()["openapi"]
    assert client.get("/openapi.json").json()["paths"]["/jobs"]
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert locked.get(path).status_code == 404
    page = client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (404, "application/json")


def test_key_that_is_not_there_cannot_be_revoked(locked: TestClient) -> None:
    for key_id in ("key_" + "0" * 24, "nonsense", "%00"):
        answer = locked.delete(f"/keys/{key_id}", headers=bearer(ADMIN_KEY))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_address_that_tries_many_keys_is_limited(locked: TestClient) -> None:
    answers = [locked.get("/jobs", headers=bearer(f"sk-ft-{number}")) for number in range(61)]
    assert {answer.status_code for answer in answers[:60]} == {401}
    assert answers[60].status_code == 429
    assert 1 <= int(answers[60].headers["retry-after"]) <= 60


def test_ipv6_network_is_limited_as_one_address() -> None:
    rates = Rates("1/minute")
    for number in range(60):
        rates.count_wrong_key(f"2001:db8::{number:x}")
    with pytest.raises(TooManyRequests):
        rates.count_wrong_key("2001:db8::ffff")
    rates.count_wrong_key("2001:db8:0:1::1")


def test_loopback_needs_no_key(client: TestClient) -> None:
    assert client.get("/jobs").status_code == 200
    assert client.get("/jobs", headers=bearer("whatever")).status_code == 200


def test_wrong_key_of_ours_is_refused_on_loopback(client: TestClient) -> None:
    assert client.get("/jobs", headers=bearer("sk-ft-wrong")).status_code == 401


def test_key_decides_the_owner_on_loopback(client: TestClient) -> None:
    key = client.post("/keys", json={"owner": "anna"}).json()
    answer = client.post("/jobs", json={"model": "tiny", "dataset": "rows.jsonl"}, headers=bearer(key["secret"]))
    assert answer.json()["owner"] == "anna"


def test_only_admins_act_for_another_owner(locked: TestClient) -> None:
    recipe = {"model": "tiny", "dataset": "rows.jsonl"}
    for_anna = locked.post("/jobs", json=recipe, headers={**bearer(ADMIN_KEY), "x-owner": "anna"})
    assert for_anna.json()["owner"] == "anna"
    bob = bearer(make_key(locked, owner="bob")["secret"])
    answer = locked.post("/jobs", json=recipe, headers={**bob, "x-owner": "anna"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "x-owner")
