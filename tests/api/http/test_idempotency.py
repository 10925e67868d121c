"""What is sent again makes nothing again."""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.app import assemble, make_services
from api.background.live import Pace
from api.background.open_requests import OpenRequests
from api.settings import ApiSettings
from contract.events import CheckpointEvent
from store import artifacts, sweeps, webhooks
from store.access import idempotent_requests, secrets
from store.access.idempotent_requests import IdempotentRequest, New, Replay
from store.errors import RequestOvertaken, RequestReused
from store.jobs import jobs
from store.session import Sessions
from tests.support.api import RATING, description, submit
from tests.support.artifacts import publish_rows, write_adapter_config
from tests.support.files import ROW
from tests.support.jobs import RECIPE, make_recipe
from tests.support.settings import VAULT
from tests.support.waiting import until


def post_with(client: TestClient, recipe: Mapping[str, Any] = RECIPE, /, **headers: str) -> Any:
    """`headers` by their names with underscores."""
    return submit(client, {name.replace("_", "-"): value for name, value in headers.items()}, **recipe)


def count(client: TestClient) -> int:
    return len(client.get("/jobs").json()["data"])


def test_one_idempotency_key_makes_one_job(client: TestClient) -> None:
    first, second = (post_with(client, idempotency_key="one").json() for _ in range(2))
    assert second["id"] == first["id"]
    assert post_with(client, idempotency_key="two").json()["id"] != first["id"]
    assert count(client) == 2


def test_key_with_another_body_is_refused(client: TestClient) -> None:
    post_with(client, idempotency_key="one")
    answer = post_with(client, {**RECIPE, "seed": 7}, idempotency_key="one")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert count(client) == 1


def test_one_key_of_two_owners_makes_two_jobs(client: TestClient) -> None:
    ids = {post_with(client, idempotency_key="one", x_owner=owner).json()["id"] for owner in ("anna", "bob")}
    assert len(ids) == 2


def test_retry_of_openais_sdk_gets_the_first_job(client: TestClient) -> None:
    first = post_with(client, x_stainless_retry_count="0").json()
    assert post_with(client, x_stainless_retry_count="1").json()["id"] == first["id"]
    assert post_with(client, x_stainless_retry_count="0").json()["id"] != first["id"]
    assert count(client) == 2


def test_retry_with_another_body_is_a_new_request(client: TestClient) -> None:
    first = post_with(client, x_stainless_retry_count="0").json()
    other = post_with(client, {**RECIPE, "seed": 7}, x_stainless_retry_count="1").json()
    others = post_with(client, x_stainless_retry_count="1", x_owner="bob").json()
    assert len({first["id"], other["id"], others["id"]}) == 3


def test_refused_request_may_be_sent_again_by_key(client: TestClient) -> None:
    assert post_with(client, {**RECIPE, "dataset": "none.jsonl"}, idempotency_key="one").status_code == 422
    assert post_with(client, idempotency_key="one").status_code == 201


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256])
def test_key_that_is_none_is_named(client: TestClient, key: str) -> None:
    answer = post_with(client, idempotency_key=key)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")


def test_concurrent_requests_of_one_key_create_one_job(client: TestClient) -> None:
    together = threading.Barrier(6)

    def send(_: int) -> Any:
        together.wait()
        return post_with(client, idempotency_key="one")

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(set(made)) == 1
    refused = [answer for answer in answers if answer.status_code != 201]
    assert {answer.json()["error"]["code"] for answer in refused} <= {"request_in_progress"}
    assert post_with(client, idempotency_key="one").json()["id"] == made[0]
    assert count(client) == 1


# A sign-in cannot be answered again: its token is stored nowhere. An answer of a model makes nothing.
NOT_REPEATED = {"/session", "/v1/chat/completions", "/v1/completions"}
POSTS = sorted({path for path, methods in description()["paths"].items() if "post" in methods} - NOT_REPEATED)


def form(rows: int) -> dict[str, Any]:
    content = json.dumps(ROW).encode() + b"\n"
    return {"files": {"file": ("rows.jsonl", content * rows)}, "data": {"purpose": "fine-tune"}}


TWO_BODIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/jobs": ({"json": RECIPE}, {"json": {**RECIPE, "seed": 7}}),
    "/plans": ({"json": RECIPE}, {"json": {**RECIPE, "seed": 7}}),
    "/datasets": (form(1), form(2)),
    "/sweeps": (
        {"json": {"recipe": RECIPE, "grid": {"seed": [1, 2]}}},
        {"json": {"recipe": RECIPE, "grid": {"seed": [1, 3]}}},
    ),
    "/sweeps/{sweep_id}/cancel": ({}, {"params": {"keep": "job_" + "0" * 24}}),
    "/keys": ({"json": {"owner": "anna"}}, {"json": {"owner": "bob"}}),
    "/webhooks": ({"json": {"url": "https://example.com/a"}}, {"json": {"url": "https://example.com/b"}}),
    "/jobs/{job_id}/exports": (
        {"json": {"format": "merged"}},
        {"json": {"format": "merged", "source": "checkpoint-1.tar"}},
    ),
    "/jobs/{job_id}/ratings": ({"json": RATING}, {"json": {**RATING, "label": False}}),
    "/jobs/{job_id}/evaluations": (
        {"json": {"dataset": "rows.jsonl"}},
        {"json": {"dataset": "rows.jsonl", "limit": 7}},
    ),
    "/jobs/{job_id}/pushes": (
        {"json": {"repo": "org/name", "secret": "hub"}},
        {"json": {"repo": "org/other", "secret": "hub"}},
    ),
    "/jobs/{job_id}/cancel": ({}, {"params": {"force": "true"}}),
    "/v1/files": (form(1), form(2)),
    "/v1/fine_tuning/jobs": (
        {"json": {"model": "tiny", "training_file": "rows.jsonl"}},
        {"json": {"model": "tiny", "training_file": "rows.jsonl", "seed": 7}},
    ),
}
BEFORE = {"resume": "pause", "retry": "cancel"}


@pytest.fixture
def ids(client: TestClient, sessions: Sessions, home: Path) -> dict[str, str]:
    """Of what the paths name: a job with an adapter, a webhook without events, a message of it."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe(), "default").id
        artifacts.add_checkpoint(
            session, job_id, 1, CheckpointEvent(time=1, step=5, path="step-5", bytes=2, final=True)
        )
        sweep_id = sweeps.create(session, "default", None, ["seed"]).id
        webhook, _ = webhooks.create(session, VAULT, "default", "https://example.com/hook", [])
        webhook.enabled = False
        secrets.put(session, VAULT, "default", "hub", "a-token")
        delivery_id = webhooks.ping(session, webhook).id
    publish_rows(sessions)
    write_adapter_config(home, job_id, "step-5")
    return {"job_id": job_id, "sweep_id": sweep_id, "webhook_id": webhook.id, "delivery_id": delivery_id}


def done(engine: sa.Engine) -> int:
    """What was done, as the audit tells: of a plan it tells nothing."""
    with engine.connect() as connection:
        return int(connection.execute(sa.text("SELECT count(*) FROM audit")).scalar_one())


@pytest.mark.parametrize("path", POSTS)
def test_every_post_runs_once_for_its_key(
    client: TestClient, ids: dict[str, str], engine: sa.Engine, path: str
) -> None:
    body, other = TWO_BODIES.get(path, ({}, {"content": b"{}"}))
    if first := BEFORE.get(path.rpartition("/")[2] if "job_id" in path else ""):
        client.post(f"/jobs/{ids['job_id']}/{first}").raise_for_status()
    before = done(engine)

    def send(body: dict[str, Any]) -> Any:
        return client.post(path.format(**ids), **body, headers={"idempotency-key": "one"})

    answer = send(body)
    assert answer.is_success, answer.text
    after = done(engine)
    assert after == before + (path != "/plans")
    again = send(body)
    assert (again.status_code, again.json().get("id")) == (answer.status_code, answer.json().get("id"))
    refused = send(other)
    assert refused.status_code == (400 if path.startswith("/v1/") else 422)
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    assert done(engine) == after


@pytest.mark.parametrize("wire", ["/jobs", "/v1/fine_tuning/jobs"])
def test_repeated_pause_does_not_undo_a_later_resume(client: TestClient, wire: str) -> None:
    job_id = post_with(client).json()["id"]

    def ask(what: str, **headers: str) -> Any:
        return client.post(f"{wire}/{job_id}/{what}", headers=headers).json()["status"]

    assert ask("pause", **{"idempotency-key": "one"}) == "paused"
    assert ask("resume") == "queued"
    assert ask("pause", **{"idempotency-key": "one"}) == "queued"
    # A client may mean a pause as often as it likes, and the first try of this one may not have come through.
    assert ask("pause", **{"x-stainless-retry-count": "1"}) == "paused"


@contextmanager
def at_work(client: TestClient, engine: sa.Engine, **headers: str) -> Iterator[Future[Any]]:
    """A POST that is kept from its end: as one that reads many rows, or copies into a bucket."""
    lock = "(hashtextextended('queue of default', 0))"
    with engine.connect() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(sa.text(f"SELECT pg_advisory_lock{lock}"))
        try:
            first = pool.submit(lambda: post_with(client, **headers))
            until(lambda: connection.execute(sa.text("SELECT count(*) FROM requests")).scalar_one())
            yield first
        finally:
            connection.execute(sa.text(f"SELECT pg_advisory_unlock{lock}"))


def age(engine: sa.Engine, by: timedelta) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE requests SET created_at = created_at - :by"), {"by": by})


Headers = dict[str, str]
HOW = pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"idempotency_key": "one"}, {"idempotency_key": "one"}),
        ({"x_stainless_retry_count": "0"}, {"x_stainless_retry_count": "1"}),
    ],
    ids=["by its key", "by the SDK's count"],
)


@HOW
def test_duplicate_in_progress_gets_409_at_once(
    client: TestClient, engine: sa.Engine, first: Headers, again: Headers
) -> None:
    with at_work(client, engine, **first) as answer:
        refused = post_with(client, **again)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "request_in_progress")
        assert int(refused.headers["retry-after"]) > 0
    assert post_with(client, **again).json()["id"] == answer.result().json()["id"]
    assert count(client) == 1


@pytest.fixture
def renewing(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """An API that renews the requests in progress all the time."""
    services = make_services(settings, Pace())
    services.requests = OpenRequests(services.sessions, seconds=0.05)
    with TestClient(assemble(services), base_url="http://127.0.0.1:8000") as client:
        yield client


@HOW
def test_long_request_is_not_begun_a_second_time(
    renewing: TestClient, engine: sa.Engine, first: Headers, again: Headers
) -> None:
    def renewed() -> bool:
        with engine.connect() as connection:
            return bool(
                connection.execute(sa.text("SELECT created_at > now() - interval '1 min' FROM requests")).scalar()
            )

    with at_work(renewing, engine, **first) as answer:
        age(engine, timedelta(hours=1))
        until(renewed)
        assert post_with(renewing, **again).status_code == 409
    assert post_with(renewing, **again).json()["id"] == answer.result().json()["id"]
    assert count(renewing) == 1


def test_forgotten_requests_are_deleted(renewing: TestClient, engine: sa.Engine) -> None:
    def kept() -> list[str]:
        with engine.connect() as connection:
            return list(connection.scalars(sa.text("SELECT key FROM requests")))

    post_with(renewing, idempotency_key="old")
    age(engine, idempotent_requests.KEPT + timedelta(seconds=1))
    post_with(renewing, idempotency_key="new")
    until(lambda: kept() == ["new"])


def test_completed_request_is_renewed_no_more(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        request = idempotent_requests.begin(session, REQUEST)
        assert isinstance(request, New)
        idempotent_requests.complete(session, request.id, "job_1")
    age(engine, idempotent_requests.KEPT + timedelta(seconds=1))
    with sessions.begin() as session:
        idempotent_requests.renew(session, request.id)  # by a thread that had listed it before
        idempotent_requests.forget(session)
        assert session.scalar(sa.text("SELECT count(*) FROM requests")) == 0


def test_dead_request_cannot_complete_after_another_has_its_key(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        dead = idempotent_requests.begin(session, REQUEST)
    age(engine, idempotent_requests.LONGEST + timedelta(seconds=1))
    with sessions.begin() as session:
        second = idempotent_requests.begin(session, REQUEST)
    assert isinstance(dead, New)
    assert isinstance(second, New)
    with sessions.begin() as session, pytest.raises(RequestOvertaken):
        idempotent_requests.complete(session, dead.id, "job_1")
    with sessions.begin() as session:
        idempotent_requests.release(session, dead.id)
        idempotent_requests.complete(session, second.id, "job_2")
    with sessions.begin() as session:
        assert idempotent_requests.begin(session, REQUEST) == Replay("job_2")


def test_superseded_request_creates_nothing(client: TestClient, engine: sa.Engine) -> None:
    with at_work(client, engine, idempotency_key="one") as answer, engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM requests"))
    refused = answer.result()
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "request_in_progress")
    assert count(client) == 0
    assert post_with(client, idempotency_key="one").status_code == 201


REQUEST = IdempotentRequest("anna", "POST /jobs", "one", "0" * 64, False)


def test_request_of_a_dead_process_may_be_repeated(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        assert isinstance(idempotent_requests.begin(session, REQUEST), New)
    with sessions.begin() as session:
        assert idempotent_requests.begin(session, REQUEST) == Replay(None)
    age(engine, idempotent_requests.LONGEST + timedelta(seconds=1))
    with sessions.begin() as session:
        assert isinstance(idempotent_requests.begin(session, REQUEST), New)


def test_key_is_forgotten_after_a_day(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        first = idempotent_requests.begin(session, REQUEST)
        assert isinstance(first, New)
        idempotent_requests.complete(session, first.id, "job_1")
    with sessions.begin() as session:
        assert idempotent_requests.begin(session, REQUEST) == Replay("job_1")
    with sessions.begin() as session, pytest.raises(RequestReused):
        idempotent_requests.begin(session, IdempotentRequest("anna", "POST /jobs", "one", "1" * 64, False))
    age(engine, idempotent_requests.KEPT + timedelta(seconds=1))
    with sessions.begin() as session:
        assert isinstance(idempotent_requests.begin(session, REQUEST), New)


def test_unkeyed_repeats_count_for_ten_minutes(sessions: Sessions, engine: sa.Engine) -> None:
    first, again = (IdempotentRequest("anna", "POST /jobs", None, "0" * 64, repeated) for repeated in (False, True))
    with sessions.begin() as session:
        begun = idempotent_requests.begin(session, first)
        assert isinstance(begun, New)
        idempotent_requests.complete(session, begun.id, "job_1")
    age(engine, timedelta(minutes=9, seconds=50))
    with sessions.begin() as session:
        assert idempotent_requests.begin(session, again) == Replay("job_1")
    age(engine, timedelta(seconds=11))
    with sessions.begin() as session:
        assert isinstance(idempotent_requests.begin(session, again), New)
