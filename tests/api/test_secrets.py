"""Secrets of owners: stored encrypted, and in no response."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.settings import ApiSettings
from store.access import secrets
from store.access.vault import Unreadable, Vault
from store.errors import SecretNotFound
from store.models import Secret, Webhook
from store.session import Sessions
from tests.support.api import bearer, make_key, serve
from tests.support.settings import SECRET_KEY, VAULT
from tests.support.waiting import until

VALUE = "a-token-that-nobody-sees"


def put(client: TestClient, name: str, value: object, **headers: str) -> int:
    return client.put(f"/secrets/{name}", json={"value": value}, headers=headers).status_code


def everything(engine: sa.Engine) -> str:
    """All rows of the database as text."""
    with engine.begin() as connection:
        names = sa.inspect(connection).get_table_names()
        return "".join(str(connection.execute(sa.text(f"SELECT * FROM {name}")).all()) for name in names)


def test_secret_is_in_no_response_and_no_row(
    client: TestClient, engine: sa.Engine, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = client.put("/secrets/mlflow", json={"value": VALUE})
    listed = client.get("/secrets")
    assert made.json() == listed.json()["data"][0]
    assert set(made.json()) == {"name", "owner", "created_at", "updated_at"}
    entry = client.get("/audit?limit=1").json()["data"][0]
    assert (entry["action"], entry["target"]) == ("secret.put", "mlflow")
    assert VALUE not in made.text + listed.text + client.get("/audit").text + everything(engine) + caplog.text
    with sessions.begin() as session:
        assert secrets.reveal(session, VAULT, "default", "mlflow") == VALUE


def test_later_value_replaces_the_earlier(client: TestClient, sessions: Sessions) -> None:
    assert (put(client, "a", "first"), put(client, "a", "second")) == (200, 200)
    with sessions.begin() as session:
        assert secrets.reveal(session, VAULT, "default", "a") == "second"
    first, second = client.get("/secrets").json()["data"][0], client.delete("/secrets/a").json()
    assert first["created_at"] < first["updated_at"]
    assert second == {"name": "a", "deleted": True}
    assert client.delete("/secrets/a").status_code == 404
    assert client.get("/secrets").json() == {"data": []}


REFUSED = ["", " hidden ", "two\nlines", "x" * 4097, 12345678, None, ["hidden-value"], "caf\u00e9"]


@pytest.mark.parametrize("value", REFUSED)
def test_refused_value_is_not_repeated(client: TestClient, value: object) -> None:
    answer = client.put("/secrets/a", json={"value": value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "value")
    assert "printable ASCII" in answer.text
    assert not value or str(value) not in answer.text
    assert "hidden" not in answer.text


@pytest.mark.parametrize("name", ["a.b", "x" * 65, "%20", "caf%C3%A9"])
def test_name_that_is_none_is_refused(client: TestClient, name: str) -> None:
    assert put(client, name, VALUE) == 422


def test_owners_have_secrets_of_their_own(locked: TestClient, sessions: Sessions) -> None:
    anna, bob, boss = (
        bearer(make_key(locked, owner=owner, admin=owner == "boss")["secret"]) for owner in ("anna", "bob", "boss")
    )
    assert put(locked, "token", "of anna", **anna) == put(locked, "token", "of bob", **bob) == 200
    assert locked.delete("/secrets/token", headers=boss).status_code == 404
    assert locked.get("/secrets", headers=boss).json()["data"] == []
    locked.delete("/secrets/token", headers=bob).raise_for_status()
    with sessions.begin() as session:
        assert secrets.reveal(session, VAULT, "anna", "token") == "of anna"
        with pytest.raises(SecretNotFound):
            secrets.reveal(session, VAULT, "bob", "token")


def test_copied_row_reveals_nothing(client: TestClient, sessions: Sessions) -> None:
    put(client, "token", VALUE, **{"x-owner": "anna"})
    with sessions.begin() as session:
        stolen = session.get_one(Secret, ("anna", "token")).ciphertext
        session.add(Secret(owner="bob", name="token", ciphertext=stolen))
        session.flush()
        with pytest.raises(Unreadable):
            secrets.reveal(session, VAULT, "bob", "token")


def test_owner_has_a_limited_number(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "MOST", 2)
    assert [put(client, name, VALUE) for name in ("a", "b", "c", "a")] == [200, 200, 429, 200]


@contextmanager
def with_keys(settings: ApiSettings, keys: str) -> Iterator[TestClient]:
    with serve(settings.model_copy(update={"secret_key": SecretStr(keys)})) as client:
        yield client


def test_new_key_takes_over_from_the_old(client: TestClient, settings: ApiSettings, sessions: Sessions) -> None:
    put(client, "token", VALUE)
    webhook = client.post("/webhooks", json={"url": "https://example.com"}).json()
    new = "another key of the tests that encrypts"
    renewed = Vault(new)

    def is_renewed() -> bool:
        with sessions.begin() as session:
            stored = [*session.scalars(sa.select(Secret.ciphertext)), *session.scalars(sa.select(Webhook.secret))]
        return len(stored) == 2 and all(map(renewed.is_current, stored))

    with with_keys(settings, f"{new},{SECRET_KEY.get_secret_value()}"):
        until(is_renewed)
    with sessions.begin() as session:
        assert secrets.reveal(session, renewed, "default", "token") == VALUE
        stored = session.get_one(Webhook, webhook["id"]).secret
    assert renewed.decrypt(secrets.webhook_place(webhook["id"]), stored) == webhook["secret"]


def test_other_key_is_reported(
    client: TestClient, settings: ApiSettings, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    put(client, "token", VALUE)
    with with_keys(settings, "a key that has never encrypted a thing"):
        until(lambda: "1 stored secrets cannot be decrypted with FINETUNED_SECRET_KEY" in caplog.text)
    with sessions.begin() as session:
        assert secrets.reveal(session, VAULT, "default", "token") == VALUE


def test_webhook_of_before_is_encrypted(settings: ApiSettings, sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.add(Webhook(id="wh_1", owner="a", url="https://a", secret="whsec_plain", events=[], enabled=True))

    def stored() -> str:
        with sessions.begin() as session:
            return session.get_one(Webhook, "wh_1").secret

    with serve(settings):
        until(lambda: stored() != "whsec_plain")
    assert VAULT.decrypt(secrets.webhook_place("wh_1"), stored()) == "whsec_plain"


def test_short_key_is_refused(settings: ApiSettings) -> None:
    with pytest.raises(ValueError, match="openssl rand -base64 32"):
        ApiSettings(**settings.model_dump() | {"secret_key": SecretStr("short")})
