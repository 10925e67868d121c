"""A key that no longer opens what it did ends what it opened: every kind of answer and request that takes long."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from store.jobs import jobs
from store.models import Job
from store.session import Sessions
from tests.api.background.streams import record
from tests.support import service
from tests.support.api import ADMIN_KEY, bearer
from tests.support.events import metric
from tests.support.files import add_model_and_dataset
from tests.support.jobs import claim, make_recipe
from tests.support.service import Service

pytestmark = pytest.mark.timeout(120)

MANY_BYTES = 64 * 2**20
"""More than what sockets hold."""


@pytest.fixture(scope="module")
def live(database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    keyed = {"FINETUNED_REQUIRE_KEYS": "true", "FINETUNED_ADMIN_KEY": ADMIN_KEY}
    with service.running(home, database_url, broker_url, workers=(), **keyed) as running:
        yield running


@pytest.fixture
def key(live: Service, sessions: Sessions) -> dict[str, Any]:
    answer = live.client.post("/keys", json={"owner": "anna", "admin": True}, headers=bearer(ADMIN_KEY))
    return answer.json()


def revoke(live: Service, _: sa.Engine, key: dict[str, Any]) -> None:
    live.client.delete(f"/keys/{key['id']}", headers=bearer(ADMIN_KEY)).raise_for_status()


def take_rights(_: Service, engine: sa.Engine, key: dict[str, Any]) -> None:
    """As another process of the API would."""
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE keys SET admin = false WHERE id = :id"), {"id": key["id"]})
    time.sleep(1.1)  # for so long another process may remember the key


def delete(_: Service, engine: sa.Engine, key: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM keys WHERE id = :id"), {"id": key["id"]})
    time.sleep(1.1)


Change = Callable[[Service, sa.Engine, dict[str, Any]], None]


@pytest.mark.parametrize("change", [revoke, take_rights, delete])
def test_open_event_stream_ends_with_its_key(
    live: Service, engine: sa.Engine, sessions: Sessions, key: dict[str, Any], change: Change
) -> None:
    job = job_of_anna(sessions)
    seen = []
    with live.client.stream("GET", f"/jobs/{job.id}/events", headers=bearer(key["secret"])) as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                seen.append(json.loads(line.removeprefix("data:")).get("step"))
            if line == "" and len(seen) == 2:
                change(live, engine, key)
                record(sessions, job, metric(7, 7))
    assert 7 not in seen


def job_of_anna(sessions: Sessions) -> Job:
    with sessions.begin() as session:
        jobs.create(session, make_recipe(), "anna")
        job = claim(session)
    assert job is not None
    return job


def test_download_ends_when_its_key_is_revoked(live: Service, engine: sa.Engine, key: dict[str, Any]) -> None:
    row = json.dumps({"prompt": "x" * 2**20, "completion": "y"}) + "\n"
    files = {"file": ("rows.jsonl", row * (MANY_BYTES // len(row)))}
    made = live.client.post("/datasets", files=files, headers=bearer(key["secret"]), timeout=60).json()
    received: list[int] = []

    def download() -> None:
        url = f"/datasets/{made['id']}/content"
        with live.client.stream("GET", url, headers=bearer(key["secret"])) as answer:
            for chunk in answer.iter_raw(2**16):
                if not received:
                    revoke(live, engine, key)
                received.append(len(chunk))

    with pytest.raises(httpx.RemoteProtocolError):
        download()
    assert 0 < sum(received) < made["bytes"] / 2


def test_upload_is_refused_when_its_key_is_revoked(live: Service, engine: sa.Engine, key: dict[str, Any]) -> None:
    def form() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'
        yield b'{"prompt": "x", "completion": "y"}\n'
        revoke(live, engine, key)
        yield b"\r\n--b--\r\n"

    headers = {**bearer(key["secret"]), "content-type": "multipart/form-data; boundary=b"}
    with httpx.Client(base_url=live.client.base_url) as sending:
        answer = sending.post("/datasets", content=form(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert live.client.get("/datasets", headers=bearer(ADMIN_KEY)).json()["data"] == []


def test_failed_test_leaves_a_keyed_service_clean(live: Service, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = jobs.create(session, make_recipe(), "anna").id
    live.recover()
    assert live.client.get("/jobs").status_code == 401
    assert live.client.get(f"/jobs/{job}", headers=bearer(ADMIN_KEY)).json()["status"] == "cancelled"
