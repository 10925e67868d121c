"""The live table of a real API, as a page reads it that is signed in."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import psutil
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
MOST_OF_A_PAGE = 1_500_000
"""Bytes: some copies of the table, which is all that a page that does not read keeps."""


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


def test_pages_that_do_not_read_cost_the_api_no_memory(
    live: Service, browser: httpx.Client, sessions: Sessions
) -> None:
    """Nor do they delay a page that reads: what it misses is read from the table when there is room for it again."""
    job_ids = [create_job(sessions, name="n" * 200) for _ in range(300)]
    api = psutil.Process(live.api.pid)
    with ExitStack() as stack, browser.stream("GET", "/jobs", headers=STREAM) as answer:
        news = events(answer)
        (_, table) = next(news)
        assert len(table["jobs"]) == len(job_ids)
        before = api.memory_info().rss
        for _ in range(40):
            stack.enter_context(silent_page(live, browser))
        for job_id in job_ids[:3]:
            with sessions.begin() as session:
                actions.cancel(session, job_id)
            next(data for _, data in news if job_id in {job["id"] for job in data["jobs"]})
        assert api.memory_info().rss - before < 40 * MOST_OF_A_PAGE


@contextmanager
def silent_page(live: Service, browser: httpx.Client) -> Iterator[None]:
    """A connection that takes a few bytes of the table and reads none of them."""
    with socket.socket() as page:
        page.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        page.connect(("127.0.0.1", int(live.environment["FINETUNED_PORT"])))
        page.sendall(
            b"GET /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
            + f"Cookie: finetuned_session={browser.cookies['finetuned_session']}\r\n\r\n".encode()
        )
        yield
