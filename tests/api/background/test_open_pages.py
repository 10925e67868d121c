"""The live table of a real API, as a page reads it that is signed in."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from store.jobs import actions, deletion
from store.session import Sessions
from tests.support import service
from tests.support.api import ADMIN_KEY
from tests.support.files import add_model_and_dataset
from tests.support.jobs import create_job
from tests.support.service import Service

pytestmark = pytest.mark.timeout(120)

STREAM = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def live(database_url: str, broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("home")
    add_model_and_dataset(home)
    keyed = {"FINETUNED_REQUIRE_KEYS": "true", "FINETUNED_ADMIN_KEY": ADMIN_KEY}
    with service.running(home, database_url, broker_url, workers=(), **keyed) as running:
        yield running


@pytest.fixture
def browser(live: Service, sessions: Sessions) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.client.base_url, trust_env=False, timeout=30) as client:
        client.post("/session", json={"key": ADMIN_KEY}).raise_for_status()
        yield client


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Id and data."""
    data: dict[str, Any] = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "data":
            data = json.loads(value)
        elif name == "id":
            yield value, data


def test_open_table_ends_when_its_browser_signs_out(browser: httpx.Client, sessions: Sessions) -> None:
    seen = []
    with browser.stream("GET", "/jobs", headers=STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for _, data in events(answer):
            seen += data["jobs"]
            cookie = {"cookie": f"finetuned_session={browser.cookies['finetuned_session']}"}
            browser.delete("/session").raise_for_status()
            create_job(sessions)
    assert seen == []
    assert browser.get("/jobs", headers=cookie).status_code == 401


def test_killed_api_costs_an_open_table_nothing(live: Service, browser: httpx.Client, sessions: Sessions) -> None:
    """What happened meanwhile is in the next event, and the sign-in still opens."""
    kept, cancelled, deleted = (create_job(sessions) for _ in range(3))
    last = ""

    def watch_it_die() -> None:
        nonlocal last
        with browser.stream("GET", "/jobs", headers=STREAM) as answer:
            for number, data in events(answer):
                last = number
                if data["reset"]:
                    assert [job["id"] for job in data["jobs"]] == [deleted, cancelled, kept]
                    live.api.kill()

    with pytest.raises(httpx.RemoteProtocolError):
        watch_it_die()
    live.api.wait()
    with sessions.begin() as session:
        actions.cancel(session, cancelled)
        actions.cancel(session, deleted)
        deletion.delete_job(session, deleted)
    live.start_api()
    with browser.stream("GET", "/jobs", headers={**STREAM, "last-event-id": last}) as answer:
        _, data = next(events(answer))
    assert data["reset"]
    assert [(job["id"], job["status"]) for job in data["jobs"]] == [(cancelled, "cancelled"), (kept, "queued")]
