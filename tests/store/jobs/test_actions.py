"""Actions of users: the states that allow them, and that a repeated one changes nothing."""

import pytest

from contract.failure import Failure, FailureCode
from contract.status import JobStatus, RequestedAction
from store.errors import IllegalMove
from store.jobs import actions, jobs
from store.jobs.attempts import AttemptEnd, finish
from store.models import Job
from store.session import Sessions
from tests.support.jobs import RETRIES, claim, make_recipe

FAILED = AttemptEnd(JobStatus.FAILED, Failure(code=FailureCode.LOSS_NOT_FINITE, message="the loss is nan"))
REQUESTS = {"cancel": actions.cancel, "pause": actions.pause, "resume": actions.resume, "retry": actions.retry}

REACHED = {
    "cancel": {"queued": "cancelled", "running": "running", "paused": "cancelled", "cancelled": "cancelled"},
    "pause": {"queued": "paused", "running": "running", "paused": "paused"},
    "resume": {"queued": "queued", "running": "running", "paused": "queued"},
    "retry": {"queued": "queued", "running": "running", "failed": "queued", "cancelled": "queued"},
}
REFUSED = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "queued",
    "retry": "queued",
}


def in_state(sessions: Sessions, status: JobStatus) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        if status is JobStatus.PAUSED:
            actions.pause(session, job_id)
        elif status is JobStatus.CANCELLED:
            actions.cancel(session, job_id)
        elif status is not JobStatus.QUEUED:
            claim(session)
            if status is not JobStatus.RUNNING:
                finish(session, job_id, 1, FAILED if status is JobStatus.FAILED else AttemptEnd(status), RETRIES)
    return job_id


def ask(sessions: Sessions, what: str, job_id: str) -> Job:
    with sessions.begin() as session:
        REQUESTS[what](session, job_id)
    with sessions.begin() as session:
        return jobs.get(session, job_id)


@pytest.mark.parametrize("status", JobStatus)
@pytest.mark.parametrize("what", REQUESTS)
def test_store_actions_are_idempotent_or_refused(sessions: Sessions, what: str, status: JobStatus) -> None:
    job_id = in_state(sessions, status)
    reached = REACHED[what].get(status)
    if reached is None:
        with pytest.raises(IllegalMove, match=f"is {status} and cannot become {REFUSED[what]}"):
            ask(sessions, what, job_id)
        assert ask_nothing(sessions, job_id).status is status
        return
    first, second = ask(sessions, what, job_id), ask(sessions, what, job_id)
    assert first.status == second.status == reached
    assert first.event_count == second.event_count


def ask_nothing(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        return jobs.get(session, job_id)


@pytest.mark.parametrize(
    ("what", "requested_action"),
    [("cancel", RequestedAction.CANCEL), ("pause", RequestedAction.PAUSE), ("resume", None)],
)
def test_running_job_is_only_asked(sessions: Sessions, what: str, requested_action: RequestedAction | None) -> None:
    assert ask(sessions, what, in_state(sessions, JobStatus.RUNNING)).requested_action is requested_action


def test_cancel_outweighs_pause(sessions: Sessions) -> None:
    job_id = in_state(sessions, JobStatus.RUNNING)
    ask(sessions, "pause", job_id)
    assert ask(sessions, "cancel", job_id).requested_action is RequestedAction.CANCEL
    for what in ("pause", "resume", "retry"):
        with pytest.raises(IllegalMove, match="running"):
            ask(sessions, what, job_id)
    assert ask_nothing(sessions, job_id).requested_action is RequestedAction.CANCEL


def test_forced_cancel_stays_one(sessions: Sessions) -> None:
    job_id = in_state(sessions, JobStatus.RUNNING)
    with sessions.begin() as session:
        actions.cancel(session, job_id, force=True)
    assert ask(sessions, "cancel", job_id).requested_action is RequestedAction.FORCE_CANCEL


def test_resumed_pause_continues_without_a_stop(sessions: Sessions) -> None:
    job_id = in_state(sessions, JobStatus.RUNNING)
    ask(sessions, "pause", job_id)
    assert ask(sessions, "resume", job_id).requested_action is None
    with sessions.begin() as session:
        finish(session, job_id, 1, AttemptEnd(JobStatus.QUEUED), RETRIES)
    assert ask_nothing(sessions, job_id).status is JobStatus.QUEUED


def test_retried_job_has_fresh_retries(sessions: Sessions) -> None:
    job_id = in_state(sessions, JobStatus.FAILED)
    job = ask(sessions, "retry", job_id)
    assert (job.failure, job.finished_at, job.retries, job.attempt) == (None, None, 0, 1)


@pytest.mark.parametrize(
    ("what", "status", "instead"),
    [("retry", JobStatus.PAUSED, "resume does it"), ("resume", JobStatus.FAILED, "retry does it")],
)
def test_resumable_job_says_so(sessions: Sessions, what: str, status: JobStatus, instead: str) -> None:
    with pytest.raises(IllegalMove, match=f"is {status} and cannot become queued by this; {instead}"):
        ask(sessions, what, in_state(sessions, status))


def test_paused_job_starts_only_when_it_is_resumed(sessions: Sessions) -> None:
    job_id = in_state(sessions, JobStatus.PAUSED)
    with sessions.begin() as session:
        assert claim(session) is None
    ask(sessions, "resume", job_id)
    with sessions.begin() as session:
        job = claim(session)
    assert job is not None
    assert (job.id, job.attempt) == (job_id, 1)
