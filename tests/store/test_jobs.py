from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from contract.failure import Failure, FailureReason
from contract.recipe import Recipe
from contract.status import JobStatus
from store import jobs, progress
from store.errors import IllegalMove, JobNotFound, StaleAttempt
from store.models import Base, Job
from store.progress import Cursor
from store.session import Sessions

RECIPE = Recipe.model_validate({"model": "m", "dataset": "d.jsonl"})
LEASE = timedelta(seconds=30)
FAILURE = Failure(reason=FailureReason.TRAINER_CRASHED, message="it broke")


def create(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, RECIPE).id


def claim(sessions: Sessions, lease: timedelta = LEASE) -> Job | None:
    with sessions.begin() as session:
        return jobs.claim(session, "worker", lease)


def get(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        return jobs.get(session, job_id)


def test_the_migrations_build_what_the_models_say(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_migrations_check_what_the_models_check(engine: sa.Engine) -> None:
    checks = sa.text(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = to_regnamespace(:schema) ORDER BY conname"
    )
    with engine.connect() as connection:
        migrated = connection.execute(checks, {"schema": "public"}).all()
        connection.execute(sa.text("CREATE SCHEMA modelled"))
        connection.execute(sa.text("SET LOCAL search_path TO modelled"))
        Base.metadata.create_all(connection)
        assert migrated == connection.execute(checks, {"schema": "modelled"}).all()
        connection.rollback()


def test_a_claim_takes_the_job_that_has_waited_longest(sessions: Sessions) -> None:
    first, second = create(sessions), create(sessions)
    claimed = [claim(sessions), claim(sessions)]
    assert [job.id for job in claimed if job] == [first, second]
    assert all(job.status is JobStatus.RUNNING and job.attempt == 1 for job in claimed if job)
    assert claim(sessions) is None


def test_claimers_at_once_never_get_the_same_job(sessions: Sessions) -> None:
    created = {create(sessions) for _ in range(40)}
    with ThreadPoolExecutor(8) as pool:
        claimed = [job.id for job in pool.map(lambda _: claim(sessions), range(60)) if job is not None]
    assert len(claimed) == len(set(claimed))
    # One that found its candidate locked may have come back empty; nothing is left for another round.
    while (job := claim(sessions)) is not None:
        claimed.append(job.id)
    assert sorted(claimed) == sorted(created)


def test_a_job_tells_first_what_is_unwise_in_its_recipe(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, RECIPE, ["slow", "large"]).id
    claim(sessions)
    with sessions.begin() as session:
        told = [(each.type, each.data) for each in progress.events_since(session, job_id, Cursor(), 100)]
    assert [kind for kind, _ in told] == ["status", "log", "log", "status"]
    assert [(data["level"], data["message"]) for kind, data in told if kind == "log"] == [
        ("warning", "slow"),
        ("warning", "large"),
    ]


def test_the_command_of_the_latest_attempt_is_kept(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.launch(session, job_id, 1, "torchrun 1", lease=timedelta(0))
    with sessions.begin() as session:
        jobs.release_expired(session, max_losses=3)
    claim(sessions)
    with sessions.begin() as session:
        jobs.launch(session, job_id, 2, "torchrun 2", LEASE)
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        jobs.launch(session, job_id, 1, "torchrun 1", LEASE)
    assert get(sessions, job_id).command == "torchrun 2"


def test_a_launch_renews_the_lease(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.launch(session, job_id, 1, "torchrun", LEASE)
    with sessions.begin() as session:
        assert jobs.release_expired(session, max_losses=3) == []


def test_an_attempt_ends_with_its_reason(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions)
    with sessions.begin() as session:
        jobs.finish(session, job_id, 1, JobStatus.FAILED, FAILURE, "the log's end")
    job = get(sessions, job_id)
    assert job.status is JobStatus.FAILED
    assert job.failure == FAILURE.model_dump(mode="json")
    assert job.finished_at is not None
    assert job.lease_expires_at is None


def test_a_stale_attempt_writes_nothing(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.release_expired(session, max_losses=3)
    claim(sessions)
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        jobs.finish(session, job_id, 1, JobStatus.SUCCEEDED, None, "")
    job = get(sessions, job_id)
    assert (job.status, job.attempt) == (JobStatus.RUNNING, 2)


def test_a_passed_lease_puts_the_job_back_in_the_queue(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        assert [job.id for job in jobs.release_expired(session, max_losses=3)] == [job_id]
    assert get(sessions, job_id).status is JobStatus.QUEUED


def test_a_lease_that_holds_is_left_alone(sessions: Sessions) -> None:
    create(sessions)
    claim(sessions)
    with sessions.begin() as session:
        assert jobs.release_expired(session, max_losses=3) == []


def test_a_job_that_loses_every_worker_fails_with_that_reason(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.release_expired(session, max_losses=1)
    job = get(sessions, job_id)
    assert job.status is JobStatus.FAILED
    assert job.failure is not None
    assert job.failure["reason"] == FailureReason.WORKER_LOST


def test_a_job_that_is_given_back_by_its_workers_has_lost_none(sessions: Sessions) -> None:
    job_id = create(sessions)
    for attempt in range(1, 4):
        claim(sessions, lease=timedelta(0))
        with sessions.begin() as session:
            jobs.finish(session, job_id, attempt, JobStatus.QUEUED, None, "")
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.release_expired(session, max_losses=2)
    assert get(sessions, job_id).status is JobStatus.QUEUED


def test_a_cancel_that_comes_while_a_job_is_given_back_is_not_lost(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions)
    with sessions.begin() as session:
        jobs.request_cancel(session, job_id)
    with sessions.begin() as session:
        jobs.finish(session, job_id, 1, JobStatus.QUEUED, None, "")
    assert get(sessions, job_id).status is JobStatus.CANCELLED


def test_a_queued_job_is_cancelled_at_once(sessions: Sessions) -> None:
    job_id = create(sessions)
    with sessions.begin() as session:
        assert jobs.request_cancel(session, job_id).status is JobStatus.CANCELLED
    assert claim(sessions) is None


def test_cancelling_twice_is_cancelling_once(sessions: Sessions) -> None:
    job_id = create(sessions)
    for _ in range(2):
        with sessions.begin() as session:
            assert jobs.request_cancel(session, job_id).status is JobStatus.CANCELLED


def test_a_running_job_is_only_asked_to_cancel(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions)
    with sessions.begin() as session:
        job = jobs.request_cancel(session, job_id)
    assert (job.status, job.wish) == (JobStatus.RUNNING, "cancel")


def test_a_cancelled_job_that_loses_its_worker_does_not_run_again(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.request_cancel(session, job_id)
    with sessions.begin() as session:
        jobs.release_expired(session, max_losses=3)
    assert get(sessions, job_id).status is JobStatus.CANCELLED


def test_a_job_that_has_succeeded_cannot_be_cancelled(sessions: Sessions) -> None:
    job_id = create(sessions)
    claim(sessions)
    with sessions.begin() as session:
        jobs.finish(session, job_id, 1, JobStatus.SUCCEEDED, None, "")
    with pytest.raises(IllegalMove, match="is succeeded and cannot become cancelled"), sessions.begin() as session:
        jobs.request_cancel(session, job_id)


def test_an_unknown_job_is_not_found(sessions: Sessions) -> None:
    with pytest.raises(JobNotFound), sessions.begin() as session:
        jobs.request_cancel(session, "job_none")


def test_pages_of_jobs_go_from_the_newest_to_the_oldest(sessions: Sessions) -> None:
    created = [create(sessions) for _ in range(5)]
    with sessions.begin() as session:
        first = [job.id for job in jobs.newest(session, 3, None)]
        second = [job.id for job in jobs.newest(session, 3, first[-1])]
    assert first + second == created[::-1]
