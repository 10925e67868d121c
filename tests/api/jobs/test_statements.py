"""What a request takes of the database: few statements, and no more of them with a longer queue or a longer run."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from fastapi.testclient import TestClient

from store.jobs import jobs, progress
from store.scheduling import scheduler
from store.session import Sessions
from tests.support.api import post_job, submit
from tests.support.events import metric
from tests.support.jobs import claim, create_job, make_recipe, record_events

MOST_OF_A_POST = 11
MOST_OF_A_LIST = 7
AS_PAGE = {"accept": "application/json"}


class Counter:
    """Counts the statements of requests, without those of the background."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def add(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "request_id" in structlog.contextvars.get_contextvars():
            self.statements.append(statement)

    def of(self, request: Callable[[], Any]) -> int:
        self.statements.clear()
        answer = request()
        assert answer.status_code < 300, answer.text
        return len(self.statements)


@pytest.fixture
def counter() -> Iterator[Counter]:
    counter = Counter()
    sa.event.listen(sa.Engine, "after_cursor_execute", counter.add)
    yield counter
    sa.event.remove(sa.Engine, "after_cursor_execute", counter.add)


def fill_queue(sessions: Sessions, count: int) -> None:
    with sessions.begin() as session:
        for _ in range(count):
            jobs.create(session, make_recipe())


@pytest.fixture
def busy(client: TestClient, sessions: Sessions) -> TestClient:
    """A service whose only device is taken, with one job waiting."""
    with sessions.begin() as session:
        jobs.create(session, make_recipe())
        assert claim(session) is not None
    post_job(client)
    return client


def test_post_takes_few_statements_whatever_waits(busy: TestClient, sessions: Sessions, counter: Counter) -> None:
    before = counter.of(lambda: submit(busy))
    fill_queue(sessions, 150)
    assert counter.of(lambda: submit(busy)) == before <= MOST_OF_A_POST, counter.statements


def test_warnings_of_a_post_take_no_statements(busy: TestClient, counter: Counter) -> None:
    with_warnings: dict[str, Any] = {"evaluation": {"dataset": "rows.jsonl"}, "batch": {"effective_batch_size": 64}}
    plain = counter.of(lambda: submit(busy))
    assert counter.of(lambda: submit(busy, **with_warnings)) == plain, counter.statements
    newest = busy.get("/jobs?limit=1").json()["data"][0]["id"]
    logs = [
        each["data"]
        for each in busy.get(f"/jobs/{newest}/events", headers=AS_PAGE).json()["data"]
        if each["type"] == "log"
    ]
    assert logs


@pytest.mark.parametrize("path", ["/jobs", "/jobs?limit=100", "/jobs/{id}"])
def test_list_takes_few_statements_whatever_waits(
    busy: TestClient, sessions: Sessions, counter: Counter, path: str
) -> None:
    path = path.format(id=busy.get("/jobs?limit=1").json()["data"][0]["id"])
    before = counter.of(lambda: busy.get(path))
    fill_queue(sessions, 150)
    assert counter.of(lambda: busy.get(path)) <= before <= MOST_OF_A_LIST, counter.statements


def test_long_run_is_not_read_for_its_last_step(sessions: Sessions) -> None:
    create_job(sessions)
    with sessions.begin() as session:
        running = claim(session)
    assert running is not None
    record_events(sessions, running.id, *(metric(step, float(step)) for step in range(1, 3001)))
    waiting = create_job(sessions)
    read = sa.text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'metrics' ")
    with sessions.begin() as session:
        session.execute(sa.text("ANALYZE metrics"))
        before = session.scalar(read)
        assert progress.latest(session, [running.id])[running.id].metric.step == 3000
        assert scheduler.outlook(session, [jobs.get(session, waiting)])[waiting].estimated_start is not None
        assert session.scalar(read) - before < 10
