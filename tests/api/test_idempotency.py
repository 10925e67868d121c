"""What is sent again makes nothing again."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from store import requests
from store.errors import RequestReused
from store.requests import Asked, First, Repeated
from store.session import Sessions

RECIPE = {"model": "tiny", "dataset": "rows.jsonl"}


def post(client: TestClient, recipe: dict[str, Any] = RECIPE, **headers: str) -> Any:
    return client.post("/jobs", json=recipe, headers={name.replace("_", "-"): value for name, value in headers.items()})


def count(client: TestClient) -> int:
    return len(client.get("/jobs").json()["data"])


def test_one_idempotency_key_makes_one_job(client: TestClient) -> None:
    first, second = (post(client, idempotency_key="one").json() for _ in range(2))
    assert second["id"] == first["id"]
    assert post(client, idempotency_key="two").json()["id"] != first["id"]
    assert count(client) == 2


def test_a_key_with_another_body_is_refused(client: TestClient) -> None:
    post(client, idempotency_key="one")
    answer = post(client, {**RECIPE, "seed": 7}, idempotency_key="one")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert count(client) == 1


def test_one_key_of_two_owners_makes_two_jobs(client: TestClient) -> None:
    ids = {post(client, idempotency_key="one", x_owner=owner).json()["id"] for owner in ("anna", "bob")}
    assert len(ids) == 2


def test_a_retry_of_openais_sdk_gets_the_first_job(client: TestClient) -> None:
    first = post(client, x_stainless_retry_count="0").json()
    assert post(client, x_stainless_retry_count="1").json()["id"] == first["id"]
    assert post(client, x_stainless_retry_count="0").json()["id"] != first["id"]
    assert count(client) == 2


def test_a_retry_with_another_body_or_owner_is_a_request_of_its_own(client: TestClient) -> None:
    first = post(client, x_stainless_retry_count="0").json()
    other = post(client, {**RECIPE, "seed": 7}, x_stainless_retry_count="1").json()
    others = post(client, x_stainless_retry_count="1", x_owner="bob").json()
    assert len({first["id"], other["id"], others["id"]}) == 3


def test_a_refused_request_may_be_sent_again_with_its_key(client: TestClient) -> None:
    assert post(client, {**RECIPE, "dataset": "none.jsonl"}, idempotency_key="one").status_code == 422
    assert post(client, idempotency_key="one").status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256])
def test_a_key_that_is_none_is_named(client: TestClient, key: str) -> None:
    answer = post(client, idempotency_key=key)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")


def test_many_at_once_with_one_key_make_one_job(client: TestClient) -> None:
    together = threading.Barrier(6)

    def send(_: int) -> Any:
        together.wait()
        return post(client, idempotency_key="one")

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert count(client) == 1


ASKED = Asked("anna", "POST /jobs", "one", "0" * 64, False)


def test_a_request_whose_process_died_may_be_asked_again_after_a_while(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        assert isinstance(requests.begin(session, ASKED), First)
    with sessions.begin() as session:
        assert requests.begin(session, ASKED) == Repeated(None)
    with engine.begin() as connection:
        late = requests.LONGEST + timedelta(seconds=1)
        connection.execute(sa.text("UPDATE requests SET created_at = now() - :late"), {"late": late})
    with sessions.begin() as session:
        assert isinstance(requests.begin(session, ASKED), First)


def test_a_key_is_forgotten_after_a_day(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        first = requests.begin(session, ASKED)
        assert isinstance(first, First)
        requests.settle(session, first.id, "job_1")
    with sessions.begin() as session:
        assert requests.begin(session, ASKED) == Repeated("job_1")
    with sessions.begin() as session, pytest.raises(RequestReused):
        requests.begin(session, Asked("anna", "POST /jobs", "one", "1" * 64, False))
    with engine.begin() as connection:
        late = requests.KEPT + timedelta(seconds=1)
        connection.execute(sa.text("UPDATE requests SET created_at = now() - :late"), {"late": late})
    with sessions.begin() as session:
        assert isinstance(requests.begin(session, ASKED), First)
