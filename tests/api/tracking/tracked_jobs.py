"""Jobs that trackers follow, and what the API says of them."""

from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient

from api.tracking.follower import FollowerPace
from contract.events import EvaluationEvent
from contract.failure import Failure, FailureCode
from contract.status import JobStatus
from store.jobs.attempts import AttemptEnd, finish
from store.session import Sessions
from store.trackings import TrackingTiming
from tests.support.events import metric
from tests.support.jobs import RETRIES, claim, record_events
from tests.support.waiting import until

PATIENT = FollowerPace(poll_seconds=0.02, send_seconds=10, timing=TrackingTiming(first_wait=timedelta(seconds=0.02)))


def tracked(client: TestClient, job_id: str) -> dict[str, Any]:
    (found,) = client.get(f"/jobs/{job_id}").json()["tracking"]
    return found


def is_in(client: TestClient, job_id: str, status: str) -> dict[str, Any]:
    """What the job says of its tracker, once it has the status."""
    return until(lambda: [each for each in [tracked(client, job_id)] if each["status"] == status], seconds=240)[0]


def start(sessions: Sessions) -> None:
    with sessions.begin() as session:
        assert claim(session) is not None


def train(sessions: Sessions, job_id: str, first: int, last: int, attempt: int = 1) -> None:
    steps = [metric(step, 1000 + step, loss=loss(step)) for step in range(first, last + 1)]
    record_events(sessions, job_id, *steps, attempt=attempt)


def loss(step: int) -> float:
    return 1 / step


def evaluate(sessions: Sessions, job_id: str, step: int) -> None:
    record_events(sessions, job_id, EvaluationEvent(time=1000 + step, step=step, eval_loss=2, supervised_tokens=1))


def end(sessions: Sessions, job_id: str, attempt: int = 1, status: JobStatus = JobStatus.SUCCEEDED) -> None:
    failure = Failure(code=FailureCode.OUT_OF_MEMORY, message="x") if status is JobStatus.FAILED else None
    with sessions.begin() as session:
        finish(session, job_id, attempt, AttemptEnd(status, failure), RETRIES)
