import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.background.live import Pace
from contract.events import LogEvent, MetricEvent
from contract.status import JobStatus
from store.jobs import jobs, progress
from store.jobs.attempts import AttemptEnd, finish
from store.session import Sessions
from tests.support.events import metric
from tests.support.jobs import LEASE, RETRIES, claim, make_recipe

pytestmark = pytest.mark.timeout(20)  # a stream that should end, and does not


def ended_job(sessions: Sessions, *reported: LogEvent | MetricEvent) -> str:
    with sessions.begin() as session:
        jobs.create(session, make_recipe())
        job = claim(session)
        assert job is not None
        progress.record(session, job.id, job.attempt, reported, LEASE)
        finish(session, job.id, job.attempt, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
        return job.id


def stream(client: TestClient, job_id: str, after: str | None = None) -> list[dict[str, Any]]:
    headers = {"last-event-id": after} if after is not None else {}
    text = client.get(f"/jobs/{job_id}/events", headers=headers).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block]
    return [{**block, "data": json.loads(block["data"])} for block in blocks]


def test_stream_includes_events_stamped_after_its_end(client: TestClient, sessions: Sessions) -> None:
    far = 4e9  # another machine's clock is ahead
    reported = stream(client, ended_job(sessions, metric(1, time=1), metric(2, time=far)))
    assert [event["event"] for event in reported] == ["metric", "status", "status", "status", "metric"]
    assert reported[-1]["data"]["step"] == 2


def test_stream_taken_up_after_its_last_event_ends(client: TestClient, sessions: Sessions) -> None:
    job_id = ended_job(sessions, metric(1, time=1))
    last = stream(client, job_id)[-1]["id"]
    assert stream(client, job_id, after=last) == []
    assert stream(client, job_id, after="2147483647.2147483647") == []


@pytest.mark.parametrize("events", [Pace.page - 4, Pace.page - 3, Pace.page - 2])
def test_stream_of_one_page_is_whole_and_ends(client: TestClient, sessions: Sessions, events: int) -> None:
    lines = [LogEvent(time=1, level="info", message="line")] * events
    assert len(stream(client, ended_job(sessions, *lines))) == events + 3


def test_stream_is_taken_up_where_it_broke_off(client: TestClient, sessions: Sessions) -> None:
    job_id = ended_job(sessions, *(metric(step, time=step) for step in range(1, 6)))
    whole = stream(client, job_id)
    for place, event in enumerate(whole, start=1):
        assert stream(client, job_id, after=event["id"]) == whole[place:]


@pytest.mark.parametrize(
    "given", ["abc", "1", "1.2.3", "-1.0", "1.-1", "2147483648.0", "0.99999999999", "1_0.0", "1." + "9" * 5000]
)
def test_last_event_id_that_is_none_is_named(client: TestClient, sessions: Sessions, given: str) -> None:
    answer = client.get(f"/jobs/{ended_job(sessions)}/events", headers={"last-event-id": given})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_parameter", "Last-Event-ID")
    assert len(answer.text) < 500


def page(client: TestClient, job_id: str, **query: str | int) -> dict[str, Any]:
    answer = client.get(f"/jobs/{job_id}/events", params=query, headers={"accept": "application/json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_pages_and_stream_have_the_same_ids(client: TestClient, sessions: Sessions) -> None:
    job_id = ended_job(
        sessions, *(metric(step, time=step) for step in range(1, 6)), LogEvent(time=3, level="info", message="")
    )
    streamed = [(each["id"], each["event"], each["data"]) for each in stream(client, job_id)]
    paged: list[dict[str, Any]] = []
    while True:
        got = page(client, job_id, limit=3, **({"after": paged[-1]["id"]} if paged else {}))
        paged += got["data"]
        assert len(got["data"]) == (3 if got["has_more"] else len(streamed) % 3 or 3)
        if not got["has_more"]:
            break
    assert [(each["id"], each["type"], {"time": each["time"], **each["data"]}) for each in paged] == streamed
    assert page(client, job_id, after=paged[-1]["id"]) == {"data": [], "has_more": False}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream, application/json", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/json; q=0.9, */*; q=0.1", "application/json"),
    ],
)
def test_page_is_for_those_who_ask_for_json(
    client: TestClient, sessions: Sessions, accept: str | None, kind: str
) -> None:
    headers = {} if accept is None else {"accept": accept}
    answer = client.get(f"/jobs/{ended_job(sessions)}/events", headers=headers)
    assert answer.headers["content-type"].partition(";")[0] == kind


def test_after_that_is_no_id_is_named(client: TestClient, sessions: Sessions) -> None:
    answer = client.get(f"/jobs/{ended_job(sessions)}/events", params={"after": "abc"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "after")
