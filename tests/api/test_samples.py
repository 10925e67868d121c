from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from contract.events import SampleEvent
from contract.status import JobStatus
from store.jobs import jobs, progress
from store.jobs.attempts import AttemptEnd, finish
from store.session import Sessions
from tests.support.jobs import RETRIES, claim, make_recipe

LEASE = timedelta(minutes=1)


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    """An ended job with two samples at step 0, and one at step 4 that is no plain text."""
    reported = [sample(0, 0, "no"), sample(0, 1, "never"), sample(4, 0, "\0 and \ud800 and \x1b[31m")]
    with sessions.begin() as session:
        jobs.create(session, make_recipe())
        job = claim(session, LEASE)
        assert job is not None
        progress.record(session, job.id, job.attempt, reported, LEASE)
        finish(session, job.id, job.attempt, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
        return job.id


def sample(step: int, index: int, generated: str) -> SampleEvent:
    return SampleEvent(time=step, step=step, index=index, prompt="?", expected="yes", generated=generated)


def test_samples_of_an_evaluation_are_a_list(client: TestClient, job_id: str) -> None:
    answer = client.get(f"/jobs/{job_id}/samples?step=0")
    assert answer.json()["data"] == [
        {"step": 0, "index": 0, "prompt": "?", "expected": "yes", "generated": "no"},
        {"step": 0, "index": 1, "prompt": "?", "expected": "yes", "generated": "never"},
    ]
    assert client.get(f"/jobs/{job_id}/samples?step=3").json() == {"data": []}


def test_latest_samples_are_returned_by_default(client: TestClient, job_id: str) -> None:
    found = client.get(f"/jobs/{job_id}/samples").json()["data"]
    assert [(each["step"], each["generated"]) for each in found] == [(4, "\ufffd and ? and \x1b[31m")]


def test_stream_of_events_tells_of_every_sample(client: TestClient, job_id: str) -> None:
    assert client.get(f"/jobs/{job_id}/events").text.count("event: sample") == 3


@pytest.mark.parametrize("step", ["-1", "x", "99999999999"])
def test_step_out_of_range_is_named(client: TestClient, job_id: str, step: str) -> None:
    answer = client.get(f"/jobs/{job_id}/samples?step={step}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "step")
