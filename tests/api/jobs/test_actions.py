"""What users ask of a job, by its routes."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from contract.exit_report import ExitReport, Process
from contract.failure import Failure, FailureCode
from contract.recipe import Batch
from contract.status import JobStatus
from runtime.broker import QUEUE, SCHEDULE, make_celery
from store.jobs import attempts
from store.jobs.attempts import AttemptEnd
from store.scheduling import leases
from store.session import Sessions
from tests.support.api import post_job
from tests.support.jobs import RETRIES, claim

FAILED = AttemptEnd(JobStatus.FAILED, Failure(code=FailureCode.LOSS_NOT_FINITE, message="the loss is nan"))

EXIT_REPORT = ExitReport(stop_requested=1, ended=3, seconds=2, processes=[Process(pid=7, name="python", killed=False)])


def ask(client: TestClient, job_id: str, what: str) -> dict[str, Any]:
    answer = client.post(f"/jobs/{job_id}/{what}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def run(sessions: Sessions, *ends: AttemptEnd) -> None:
    """Starts the job that waits, and ends it so."""
    with sessions.begin() as session:
        job = claim(session)
        assert job is not None
        for end in ends:
            attempts.finish(session, job.id, job.attempt, end, RETRIES)


@pytest.mark.parametrize(
    ("end", "what", "status"),
    [
        (None, "cancel", "cancelled"),
        (None, "pause", "paused"),
        (AttemptEnd(JobStatus.PAUSED), "resume", "queued"),
        (FAILED, "retry", "queued"),
        (AttemptEnd(JobStatus.CANCELLED), "retry", "queued"),
    ],
)
def test_job_actions_are_idempotent(
    client: TestClient, sessions: Sessions, end: AttemptEnd | None, what: str, status: str
) -> None:
    job_id = post_job(client)["id"]
    if end is not None:
        run(sessions, end)
    first, again = ask(client, job_id, what), ask(client, job_id, what)
    assert first["status"] == again["status"] == status
    assert first["finished_at"] == again["finished_at"]
    reported = client.get("/jobs").json()["data"]
    assert [job["status"] for job in reported] == [status]


@pytest.mark.parametrize(
    ("what", "requested_action"),
    [
        ("cancel", "cancel"),
        ("cancel?force=true", "force_cancel"),
        ("pause", "pause"),
        ("resume", None),
        ("retry", None),
    ],
)
def test_running_job_tells_what_is_asked_of_it(
    client: TestClient, sessions: Sessions, what: str, requested_action: str | None
) -> None:
    job_id = post_job(client)["id"]
    run(sessions)
    job = ask(client, job_id, what)
    assert (job["status"], job["requested_action"]) == ("running", requested_action)


@pytest.mark.parametrize(
    ("what", "target"), [("cancel", "cancelled"), ("pause", "paused"), ("resume", "queued"), ("retry", "queued")]
)
def test_illegal_action_is_refused_with_both_statuses(
    client: TestClient, sessions: Sessions, what: str, target: str
) -> None:
    job_id = post_job(client)["id"]
    run(sessions, AttemptEnd(JobStatus.SUCCEEDED))
    answer = client.post(f"/jobs/{job_id}/{what}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "illegal_state")
    assert f"is succeeded and cannot become {target}" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_invalid_force_is_named(client: TestClient) -> None:
    error = client.post(f"/jobs/{post_job(client)['id']}/cancel?force=perhaps").json()["error"]
    assert (error["code"], error["param"]) == ("invalid_parameter", "force")


@pytest.mark.parametrize(("end", "what"), [(AttemptEnd(JobStatus.PAUSED), "resume"), (FAILED, "retry")])
def test_job_that_goes_on_wakes_the_workers(
    client: TestClient, sessions: Sessions, settings: ApiSettings, end: AttemptEnd, what: str
) -> None:
    job_id = post_job(client)["id"]
    run(sessions, end)
    with make_celery(settings).connection_for_read() as connection, connection.SimpleQueue(QUEUE) as messages:
        messages.clear()
        ask(client, job_id, what)
        assert messages.get(timeout=5).headers["task"] == SCHEDULE


def test_job_tells_on_which_devices_it_runs(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    run(sessions)
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["worker"], job["devices"]) == ("worker", [{"worker": "worker", "number": 0}])
    with sessions.begin() as session:
        leases.free(session, job_id, 1, "worker")
    assert client.get(f"/jobs/{job_id}").json()["devices"] == []


def test_job_shows_retries_and_its_receipt(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    lost = Failure(code=FailureCode.WORKER_LOST, message="worker a was lost")
    run(sessions, AttemptEnd(JobStatus.FAILED, lost, exit_report=EXIT_REPORT.model_dump(mode="json")))
    job = client.get(f"/jobs/{job_id}").json()
    assert (job["status"], job["retries"], job["exit_report"]) == ("queued", 1, EXIT_REPORT.model_dump(mode="json"))
    assert job["not_before"] is not None


def test_oversized_job_shows_its_smaller_batch(client: TestClient, sessions: Sessions) -> None:
    job_id = post_job(client)["id"]
    failure = Failure(code=FailureCode.OUT_OF_MEMORY, message="out of memory")
    run(sessions, AttemptEnd(JobStatus.FAILED, failure, smaller=Batch(micro_batch_size=4, effective_batch_size=8)))
    batch = client.get(f"/jobs/{job_id}").json()["batch"]
    assert (batch["micro_batch_size"], batch["effective_batch_size"]) == (4, 8)


def test_priority_is_told(client: TestClient) -> None:
    assert post_job(client, scheduling={"priority": 7})["priority"] == 7
