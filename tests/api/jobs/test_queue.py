"""Of a job that waits: its place, what it waits for, and when it is expected to start."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.background.live import Pace
from api.settings import ApiSettings
from contract.status import JobStatus
from store.jobs import actions, attempts, jobs
from store.jobs.attempts import AttemptEnd
from store.scheduling import scheduler
from store.session import Sessions, read_snapshot
from tests.support.api import post_job, serve
from tests.support.jobs import RETRIES, begin, claim, make_recipe, register
from tests.support.sse import parse_events

RECIPE = make_recipe()

NOWHERE = "The job waits for a machine that can train it; none is there."


def queue(client: TestClient, job_id: str) -> Any:
    return client.get(f"/jobs/{job_id}").json()["queue"]


def test_queued_job_shows_its_position_and_reason(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        jobs.create(session, RECIPE)
        claim(session)
    second, third = (client.get(f"/jobs/{post_job(client)['id']}").json() for _ in range(2))
    reason = "The job waits for 1 CPU slot on one machine: worker has 0 of 1 free."
    values = {
        "needs": [{"count": 1, "unit": "CPU slot"}],
        "states": [{"machine": "worker", "free": 0, "usable": 1, "busy": 0}],
        "more": 0,
    }
    assert third["queue"] == {
        "position": 2,
        "reason": reason,
        "code": "busy_devices",
        "values": values,
        "estimated_start_at": None,
    }
    assert [job["queue"]["position"] for job in client.get("/jobs?limit=2").json()["data"]] == [2, 1]
    assert client.post(f"/jobs/{second['id']}/cancel").json()["queue"] is None
    assert queue(client, third["id"])["position"] == 1


def test_queued_job_shows_its_expected_start(client: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        jobs.create(session, RECIPE, expected_seconds=600)
        claim(session)
    estimated_start_at = datetime.fromisoformat(queue(client, post_job(client)["id"])["estimated_start_at"])
    assert abs(estimated_start_at - datetime.now(UTC) - timedelta(seconds=600)) < timedelta(seconds=30)


def test_job_that_was_given_devices_tells_which(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    with sessions.begin() as session:
        register(session, "gpu-a")
        scheduler.schedule(session)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["queue"]["reason"]) == ("queued", "The job is about to start on gpu-a.")
    assert job["devices"] == [{"worker": "gpu-a", "number": 0}]


def test_jobs_that_are_not_queued_wait_for_nothing(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    with sessions.begin() as session:
        claim(session)
    assert queue(client, job_id) is None
    for status in (JobStatus.PAUSED, JobStatus.SUCCEEDED):
        with sessions.begin() as session:
            if status is JobStatus.PAUSED:
                actions.pause(session, job_id)
            attempts.finish(session, job_id, jobs.get(session, job_id).attempt, AttemptEnd(status), RETRIES)
        assert queue(client, job_id) is None
        if status is JobStatus.PAUSED:
            with sessions.begin() as session:
                actions.resume(session, job_id)
                claim(session)


def test_stream_reports_changes_of_the_queue(settings: ApiSettings, sessions: Sessions) -> None:
    reported = []
    with serve(settings, Pace(poll_seconds=0.01, queue_seconds=0.0)) as client:
        job_id = post_job(client)["id"]
        with client.stream("GET", f"/jobs/{job_id}/events") as response:
            for event in parse_events(response.iter_lines()):
                reported.append((event.event, event.id))
                if event.event == "queue":
                    position, reason = (json.loads(event.data)[name] for name in ("position", "reason"))
                    assert (position, reason) == (
                        reported.count(reported[-1]),
                        NOWHERE,
                    )
                    if position == 1:
                        post_job(client, scheduling={"priority": 1})
                    else:
                        client.post(f"/jobs/{job_id}/cancel")
    assert reported == [("status", "1.0"), ("queue", "1.0"), ("queue", "1.0"), ("status", "2.0")]


def test_job_that_ends_while_read_stays_consistent(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    with read_snapshot(sessions) as session:
        job = jobs.get(session, job_id)
        client.post(f"/jobs/{job_id}/cancel")
        assert scheduler.outlook(session, [job])[job_id].reason == NOWHERE


@pytest.mark.parametrize("owners", [1, 10, 50])
def test_long_queue_reads_hardly_more_rows(
    client: TestClient, sessions: Sessions, engine: sa.Engine, owners: int
) -> None:
    def fill(first: int, last: int) -> None:
        with engine.begin() as connection:
            jobs = sa.text(
                "INSERT INTO jobs (id, owner, recipe, priority, status, attempt, retries, event_count, created_at) "
                "SELECT 'job_' || lpad(to_hex(n), 24, '0'), 'owner-' || n % :owners, :recipe, 0, 'queued', 0, 0, 0, "
                "now() - n * interval '1 s' FROM generate_series(CAST(:first AS int), CAST(:last AS int)) AS n"
            )
            recipe = RECIPE.model_dump_json()
            connection.execute(jobs, {"owners": owners, "recipe": recipe, "first": first, "last": last})
            connection.execute(sa.text("ANALYZE jobs"))

    read: list[int] = []

    def count(_connection: Any, cursor: Any, *_: Any) -> None:
        read.append(cursor.rowcount)

    def rows_of_a_page() -> int:
        read.clear()
        assert len(client.get("/jobs?limit=100").json()["data"]) == 100
        return sum(read)

    with sessions.begin() as session:
        register(session, slots=2)
    fill(1, 3000)
    with sessions.begin() as session:
        begin(session)
    sa.event.listen(sa.Engine, "after_cursor_execute", count)
    try:
        shorter = rows_of_a_page()
        fill(3001, 10_000)
        assert 100 < rows_of_a_page() < 1.1 * shorter
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", count)
