from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from contract.events import MetricEvent
from contract.failure import Failure, FailureCode
from contract.fault import Fault
from contract.recipe import Batch, Recipe
from contract.status import JobStatus, RequestedAction
from store.errors import StaleAttempt
from store.jobs import actions, attempts, jobs, progress, transitions
from store.jobs.attempts import AttemptEnd, Retries
from store.jobs.progress import METRIC_COLUMNS
from store.models import Job
from store.scheduling import scheduler, workers
from store.session import Sessions
from tests.support import fake_trainer
from tests.support.jobs import LEASE, RETRIES, claim, events_of_type, get_job, make_recipe, register

KILLED = Failure(code=FailureCode.TRAINER_KILLED, message="it was killed")
CRASHED = Failure(code=FailureCode.TRAINER_CRASHED, message="Connection closed by peer")
AWAY = Failure(code=FailureCode.STORAGE_UNAVAILABLE, message="the storage is away")
NOT_FINITE = Failure(code=FailureCode.LOSS_NOT_FINITE, message="the loss is nan")
TOO_LARGE = Failure(code=FailureCode.OUT_OF_MEMORY, message="it did not fit")
GRACE = timedelta(seconds=45)


def running(sessions: Sessions) -> str:
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        claim(session)
    return job_id


def end(sessions: Sessions, job_id: str, attempt: int, how: AttemptEnd, retries: Retries = RETRIES) -> Job:
    with sessions.begin() as session:
        attempts.finish(session, job_id, attempt, how, retries)
    return get_job(sessions, job_id)


def again(sessions: Sessions) -> None:
    with sessions.begin() as session:
        assert claim(session) is not None


def take_step(sessions: Sessions, job_id: str, attempt: int, step: int) -> None:
    metric = MetricEvent.model_validate({**dict.fromkeys(METRIC_COLUMNS, 0), "step": step, "time": 1})
    with sessions.begin() as session:
        progress.record(session, job_id, attempt, [metric], LEASE)


def go_on_from(sessions: Sessions, job_id: str, attempt: int, step: int) -> None:
    with sessions.begin() as session:
        progress.record(session, job_id, attempt, [fake_trainer.started(total=100, resumed=step)], LEASE)


def silence(engine: sa.Engine, seconds: float) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE workers SET seen_at = now() - interval '{seconds} s'"))
        connection.execute(sa.text(f"UPDATE jobs SET lease_expires_at = now() - interval '{seconds - 10} s'"))


def test_attempt_ends_with_a_reason_and_frees_devices(sessions: Sessions) -> None:
    job_id = running(sessions)
    exit_report: dict[str, Any] = {"processes": []}
    job = end(
        sessions, job_id, 1, AttemptEnd(JobStatus.FAILED, NOT_FINITE, log_tail="the log's end", exit_report=exit_report)
    )
    assert (job.status, job.lease_expires_at, job.log_tail) == (JobStatus.FAILED, None, "the log's end")
    reported = {"code": "loss_not_finite", "message": "the loss is nan", "param": None}
    assert (job.failure, job.exit_report) == (reported, exit_report)
    assert job.finished_at is not None
    with sessions.begin() as session:
        assert workers.list_leases(session) == []


def test_stale_attempt_writes_nothing(sessions: Sessions) -> None:
    job_id = running(sessions)
    end(sessions, job_id, 1, AttemptEnd(JobStatus.QUEUED))
    again(sessions)
    with pytest.raises(StaleAttempt):
        end(sessions, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED))
    job = get_job(sessions, job_id)
    assert (job.status, job.attempt) == (JobStatus.RUNNING, 2)


def test_failure_of_the_infrastructure_is_tried_again_later(sessions: Sessions) -> None:
    job_id = running(sessions)
    later = Retries(most=3, first_wait=timedelta(minutes=1), longest_wait=timedelta(hours=1))
    job = end(sessions, job_id, 1, AttemptEnd(JobStatus.FAILED, KILLED), later)
    assert (job.status, job.retries, job.failure) == (JobStatus.QUEUED, 1, None)
    with sessions.begin() as session:
        assert claim(session) is None
    (retry,) = events_of_type(sessions, job_id, "retry")
    assert {name: retry[name] for name in ("code", "retries", "max_retries", "wait_seconds")} == {
        "code": "trainer_killed",
        "retries": 1,
        "max_retries": 3,
        "wait_seconds": 60,
    }


def test_retry_waits_double_up_to_a_limit(sessions: Sessions) -> None:
    job_id = running(sessions)
    policy = Retries(most=5, first_wait=timedelta(milliseconds=1), longest_wait=timedelta(milliseconds=3))
    for attempt in (1, 2, 3):
        end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, KILLED), policy)
        with sessions.begin() as session:
            session.execute(sa.update(Job).values(not_before=None))
        again(sessions)
    assert [retry["wait_seconds"] for retry in events_of_type(sessions, job_id, "retry")] == [0.001, 0.002, 0.003]


def test_storage_waits_double_and_do_not_count(sessions: Sessions) -> None:
    job_id = running(sessions)
    policy = Retries(most=1, first_wait=timedelta(milliseconds=1), longest_wait=timedelta(milliseconds=4))
    failures = [AWAY, AWAY, AWAY, AWAY, KILLED, AWAY]
    for attempt, failure in enumerate(failures, 1):
        job = end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, failure), policy)
        assert (job.status, job.failure) == (JobStatus.QUEUED, None)
        assert job.not_before is not None
        with sessions.begin() as session:
            session.execute(sa.update(Job).values(not_before=None))
        again(sessions)
    assert [retry["wait_seconds"] for retry in events_of_type(sessions, job_id, "retry")] == [
        0.001, 0.002, 0.004, 0.004, 0.001, 0.001
    ]  # fmt: skip
    assert get_job(sessions, job_id).retries == 1


def test_job_waiting_for_storage_can_be_cancelled(sessions: Sessions) -> None:
    job_id = running(sessions)
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    assert end(sessions, job_id, 1, AttemptEnd(JobStatus.FAILED, AWAY)).status is JobStatus.CANCELLED


def test_job_without_progress_fails_after_its_retries(sessions: Sessions) -> None:
    job_id = running(sessions)
    for attempt in (1, 2):
        take_step(sessions, job_id, attempt, 7)
        assert end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, KILLED)).status is JobStatus.QUEUED
        again(sessions)
    job = end(sessions, job_id, 3, AttemptEnd(JobStatus.FAILED, KILLED))
    assert job.status is JobStatus.FAILED
    assert job.failure is not None
    assert job.failure["code"] == "trainer_killed"
    assert job.failure["message"].startswith("it was killed. It was tried 3 times")


def test_job_with_progress_is_retried_without_end(sessions: Sessions) -> None:
    job_id = running(sessions)
    for attempt in range(1, 8):
        take_step(sessions, job_id, attempt, attempt)
        assert end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, KILLED)).status is JobStatus.QUEUED
        again(sessions)


def test_regained_steps_are_no_progress(sessions: Sessions) -> None:
    job_id = running(sessions)
    for attempt, step in enumerate((100, 50, 100), start=1):
        go_on_from(sessions, job_id, attempt, 0)
        take_step(sessions, job_id, attempt, step)
        job = end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, KILLED))
        assert (job.retries, job.failed_step) == (attempt, 100)
        if attempt < 3:
            again(sessions)
    assert job.status is JobStatus.FAILED


def test_fault_of_the_users_is_not_tried_again(sessions: Sessions) -> None:
    job = end(sessions, running(sessions), 1, AttemptEnd(JobStatus.FAILED, NOT_FINITE))
    assert job.status is JobStatus.FAILED
    assert events_of_type(sessions, job.id, "retry") == []


def crash(
    location: str = "models/x.py:7 forward", step: int | None = 3, exception: str = "builtins.KeyError"
) -> Failure:
    fault = Fault(exception=exception, location=location, step=step)
    return Failure(code=FailureCode.TRAINER_CRASHED, message="the trainer failed: KeyError: 'x'", fault=fault)


@pytest.mark.parametrize("between", [[], [KILLED], [CRASHED, AWAY]], ids=["next", "after a kill", "after others"])
def test_repeated_fault_ends_the_job(sessions: Sessions, between: list[Failure]) -> None:
    job_id = running(sessions)
    for attempt, failure in enumerate([crash(), *between], 1):
        assert end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, failure)).status is JobStatus.QUEUED
        again(sessions)
    job = end(sessions, job_id, len(between) + 2, AttemptEnd(JobStatus.FAILED, crash()))
    assert (job.status, job.failure) == (
        JobStatus.FAILED,
        {
            "code": "internal_error",
            "message": "the trainer failed: KeyError: 'x'. It failed alike in an earlier attempt, and would again",
            "param": None,
        },
    )
    assert events_of_type(sessions, job_id, "retry")[0]["fault"] == {
        "exception": "builtins.KeyError",
        "location": "models/x.py:7 forward",
        "step": 3,
    }


@pytest.mark.parametrize(
    "other",
    [crash(step=4), crash(location="models/x.py:8 forward"), crash(exception="builtins.ValueError"), CRASHED, KILLED],
    ids=["step", "location", "exception", "crash of infrastructure", "kill"],
)
def test_different_fault_is_tried_again(sessions: Sessions, other: Failure) -> None:
    job_id = running(sessions)
    end(sessions, job_id, 1, AttemptEnd(JobStatus.FAILED, crash()))
    again(sessions)
    assert end(sessions, job_id, 2, AttemptEnd(JobStatus.FAILED, other)).status is JobStatus.QUEUED


def test_infrastructure_crash_has_all_its_retries(sessions: Sessions) -> None:
    job_id = running(sessions)
    for attempt in range(1, RETRIES.most + 1):
        take_step(sessions, job_id, attempt, 3)
        assert end(sessions, job_id, attempt, AttemptEnd(JobStatus.FAILED, CRASHED)).status is JobStatus.QUEUED
        again(sessions)
    assert RETRIES.most > 1


def test_internal_error_is_not_tried_again(sessions: Sessions) -> None:
    failure = crash(step=None).model_copy(update={"code": FailureCode.INTERNAL_ERROR})
    job = end(sessions, running(sessions), 1, AttemptEnd(JobStatus.FAILED, failure))
    assert job.status is JobStatus.FAILED
    assert events_of_type(sessions, job.id, "retry") == []


def test_oversized_attempt_retries_a_smaller_batch(sessions: Sessions) -> None:
    job_id = running(sessions)
    smaller = Batch(micro_batch_size=4, effective_batch_size=16)
    job = end(sessions, job_id, 1, AttemptEnd(JobStatus.FAILED, TOO_LARGE, smaller=smaller))
    assert (job.status, job.batch, job.retries) == (JobStatus.QUEUED, smaller.model_dump(mode="json"), 0)
    (retry,) = events_of_type(sessions, job_id, "retry")
    assert (retry["code"], retry["micro_batch_size"], retry["effective_batch_size"]) == ("out_of_memory", 4, 16)
    with sessions.begin() as session:
        (part,) = [
            transitions.begin(session, g.job_id, g.attempt, "worker", 1, LEASE) for g in scheduler.schedule(session)
        ]
    assert part is not None
    assert part.batch == job.batch


def test_unfittable_job_fails(sessions: Sessions) -> None:
    assert end(sessions, running(sessions), 1, AttemptEnd(JobStatus.FAILED, TOO_LARGE)).status is JobStatus.FAILED


def test_returned_job_has_not_failed(sessions: Sessions) -> None:
    job_id = running(sessions)
    for attempt in range(1, 6):
        assert end(sessions, job_id, attempt, AttemptEnd(JobStatus.QUEUED)).retries == 0
        again(sessions)


@pytest.mark.parametrize(
    ("requested_action", "status"),
    [
        (RequestedAction.CANCEL, JobStatus.CANCELLED),
        (RequestedAction.FORCE_CANCEL, JobStatus.CANCELLED),
        (RequestedAction.PAUSE, JobStatus.PAUSED),
    ],
)
@pytest.mark.parametrize(
    "how", [AttemptEnd(JobStatus.QUEUED), AttemptEnd(JobStatus.FAILED, KILLED)], ids=["given back", "killed"]
)
def test_action_requested_while_an_attempt_ends_is_not_lost(
    sessions: Sessions, requested_action: RequestedAction, status: JobStatus, how: AttemptEnd
) -> None:
    job_id = running(sessions)
    with sessions.begin() as session:
        if requested_action is RequestedAction.PAUSE:
            actions.pause(session, job_id)
        else:
            actions.cancel(session, job_id, force=requested_action is RequestedAction.FORCE_CANCEL)
    job = end(sessions, job_id, 1, how)
    assert (job.status, job.requested_action, job.failure) == (status, None, None)
    assert events_of_type(sessions, job_id, "retry") == []


@pytest.mark.parametrize(
    ("ask", "status"),
    [(actions.pause, JobStatus.PAUSED), (actions.resume, JobStatus.QUEUED), (actions.cancel, JobStatus.CANCELLED)],
)
def test_last_action_during_a_pause_decides(
    sessions: Sessions, ask: Callable[[Session, str], Job], status: JobStatus
) -> None:
    job_id = running(sessions)
    for each in (actions.pause, ask):
        with sessions.begin() as session:
            each(session, job_id)
    assert end(sessions, job_id, 1, AttemptEnd(JobStatus.PAUSED)).status is status


def test_attempt_with_a_lost_process_is_retried(sessions: Sessions) -> None:
    job_id = running(sessions)
    with sessions.begin() as session:
        assert attempts.fail_lost(session, job_id, 1, RETRIES) is JobStatus.QUEUED
        assert attempts.fail_lost(session, job_id, 1, RETRIES) is None
    (retry,) = events_of_type(sessions, job_id, "retry")
    assert retry["code"] == "worker_lost"


def test_second_lost_worker_delays_the_job(sessions: Sessions) -> None:
    """It has waited for the lease to pass, and another worker may have what this one lacked."""
    job_id = running(sessions)
    policy = Retries(most=3, first_wait=timedelta(hours=1), longest_wait=timedelta(hours=4))
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 1, policy)
    again(sessions)
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 2, policy)
    assert [retry["wait_seconds"] for retry in events_of_type(sessions, job_id, "retry")] == [0, 7200]


def test_silent_worker_loses_jobs_and_devices(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = running(sessions)
    silence(engine, 11)
    with sessions.begin() as session:
        ((job, status),) = attempts.fail_expired(session, GRACE, RETRIES)
    assert (job.id, status) == (job_id, JobStatus.QUEUED)
    with sessions.begin() as session:
        assert [lease.job_id for lease in workers.list_leases(session)] == [job_id]
        assert scheduler.schedule(session) == []


@pytest.mark.parametrize(
    "passed",
    ["jobs SET lease_expires_at = now() - interval '1 s'", "workers SET seen_at = now() - interval '11 s'"],
    ids=["the lease alone", "the worker alone"],
)
def test_job_moves_after_lease_and_silence_only(sessions: Sessions, engine: sa.Engine, passed: str) -> None:
    job_id = running(sessions)
    with engine.begin() as connection:
        connection.execute(sa.text(f"UPDATE {passed}"))
    with sessions.begin() as session:
        assert attempts.fail_expired(session, GRACE, RETRIES) == []
    assert get_job(sessions, job_id).status is JobStatus.RUNNING


def test_cancel_waits_for_processes_of_lost_machine(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = running(sessions)
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    for seconds, status in ((30, JobStatus.RUNNING), (60, JobStatus.CANCELLED)):
        silence(engine, seconds)
        with sessions.begin() as session:
            attempts.fail_expired(session, GRACE, RETRIES)
        assert get_job(sessions, job_id).status is status


def test_job_without_its_former_device_is_retried(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = running(sessions)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM leases"))
        connection.execute(sa.text("UPDATE jobs SET lease_expires_at = now() - interval '1 s'"))
    with sessions.begin() as session:
        ((job, status),) = attempts.fail_expired(session, GRACE, RETRIES)
    assert (job.id, status) == (job_id, JobStatus.QUEUED)


def test_leases_of_an_unstarted_attempt_are_released(sessions: Sessions) -> None:
    with sessions.begin() as session:
        recipe = Recipe.model_validate({"model": "m", "dataset": "d", "resources": {"nodes": 2}})
        job_id = jobs.create(session, recipe).id
        for name in "ab":
            register(session, name)
        scheduler.schedule(session)
        transitions.begin(session, job_id, 1, "a", 1, LEASE)
    end(sessions, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED))
    with sessions.begin() as session:
        assert workers.list_leases(session) == []
