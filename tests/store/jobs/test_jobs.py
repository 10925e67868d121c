from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.orm import Session

from contract.recipe import Recipe
from contract.status import JobStatus
from store.errors import JobNotFound, StaleAttempt
from store.jobs import actions, jobs, progress, transitions
from store.jobs.attempts import AttemptEnd, finish
from store.jobs.progress import Cursor
from store.jobs.transitions import AttemptPart
from store.models import Base, Job
from store.scheduling import leases, scheduler, workers
from store.session import Sessions
from tests.support.jobs import LEASE, RETRIES, claim, create_job, get_job, make_recipe, register
from tests.support.waiting import until

RECIPE = make_recipe()


def claimed(sessions: Sessions, lease: timedelta = LEASE) -> Job | None:
    with sessions.begin() as session:
        return claim(session, lease)


def test_migrations_build_what_the_models_say(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrations_check_what_the_models_check(engine: sa.Engine) -> None:
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


def test_job_that_has_waited_longest_comes_first(sessions: Sessions) -> None:
    first, second = create_job(sessions), create_job(sessions)
    taken = [claimed(sessions), claimed(sessions)]
    assert [job.id for job in taken if job] == [first, second]
    assert all(job.status is JobStatus.RUNNING and job.attempt == 1 for job in taken if job)
    assert claimed(sessions) is None


def test_leased_job_waits_for_its_worker(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        (given,) = scheduler.schedule(session)
        assert (given.job_id, given.attempt, given.workers) == (job_id, 1, ["worker"])
    assert get_job(sessions, job_id).status is JobStatus.QUEUED
    with sessions.begin() as session:
        part = transitions.begin(session, job_id, 1, "worker", 1, LEASE)
        assert part is not None
        assert (part.devices, part.rank) == ([0], 0)
    job = get_job(sessions, job_id)
    assert (job.status, job.attempt, job.worker) == (JobStatus.RUNNING, 1, "worker")


def test_leased_job_is_begun_once(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)
    begun = []
    for _ in range(2):
        with sessions.begin() as session:
            begun.append(transitions.begin(session, job_id, 1, "worker", 1, LEASE))
    assert begun[0] is not None
    assert begun[1] is None


def test_cancelled_job_is_not_begun(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    with sessions.begin() as session:
        assert transitions.begin(session, job_id, 1, "worker", 1, LEASE) is None
        assert workers.list_leases(session) == []


def tell_something(session: Session, job_id: str) -> None:
    jobs.record_event(session, jobs.get(session, job_id), "log", {"level": "info", "message": "something"})


@pytest.mark.parametrize(
    ("write", "begins"),
    [(tell_something, True), (actions.cancel, False), (leases.revoke, False)],
    ids=["an event", "a cancel", "its devices taken back"],
)
def test_begin_waits_for_a_concurrent_write(
    sessions: Sessions, engine: sa.Engine, write: Callable[[Session, str], object], begins: bool
) -> None:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)

    def begin() -> AttemptPart | None:
        with sessions.begin() as session:
            return transitions.begin(session, job_id, 1, "worker", 1, LEASE)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            write(session, job_id)
            begun = pool.submit(begin)
            until(lambda: waiting_for_a_lock(engine) == 1)
        assert (begun.result() is not None) == begins
    job = get_job(sessions, job_id)
    assert (job.status is JobStatus.RUNNING, job.attempt) == (begins, int(begins))
    with sessions.begin() as session:
        reported = [each.data.get("status") for each in progress.events_since(session, job_id, Cursor(), 100)]
    assert len(reported) == job.event_count
    assert (reported[-1] == JobStatus.RUNNING) == begins


def waiting_for_a_lock(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return connection.scalar(waiting) or 0


def test_job_lists_its_recipe_warnings_first(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, RECIPE, warnings=["slow", "large"]).id
    claimed(sessions)
    with sessions.begin() as session:
        reported = [(each.type, each.data) for each in progress.events_since(session, job_id, Cursor(), 100)]
    assert [kind for kind, _ in reported] == ["status", "log", "log", "status"]
    assert [(data["level"], data["message"]) for kind, data in reported if kind == "log"] == [
        ("warning", "slow"),
        ("warning", "large"),
    ]


def test_command_of_the_latest_attempt_is_kept(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    for attempt in (1, 2):
        claimed(sessions)
        with sessions.begin() as session:
            jobs.launch(session, job_id, attempt, f"torchrun {attempt}", LEASE)
        if attempt == 1:
            with sessions.begin() as session:
                finish(session, job_id, 1, AttemptEnd(JobStatus.QUEUED), RETRIES)
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        jobs.launch(session, job_id, 1, "torchrun 1", LEASE)
    assert get_job(sessions, job_id).command == "torchrun 2"


def test_launch_renews_the_lease(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    claimed(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        assert jobs.list_overdue(session, "worker", timedelta(0)) == {job_id}
        jobs.launch(session, job_id, 1, "torchrun", LEASE)
    with sessions.begin() as session:
        assert jobs.list_overdue(session, "worker", timedelta(0)) == set()


def test_head_keeps_its_lease_while_peers_end(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    claimed(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.signal_peers_done(session, job_id, 1, LEASE)
    with sessions.begin() as session:
        assert jobs.list_overdue(session, "worker", timedelta(0)) == set()
        assert jobs.get(session, job_id).rendezvous == ""


def test_expected_time_follows_similar_jobs(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        for examples in (100, 200, 300):
            job = jobs.create(session, RECIPE, examples=examples)
            claim(session)
            finish(session, job.id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET started_at = finished_at - examples * interval '2 seconds'"))
    other = RECIPE.model_copy(update={"model": "other"})
    larger = Recipe.model_validate({**RECIPE.model_dump(), "resources": {"gpus": 2}})
    with sessions.begin() as session:
        assert jobs.expected_seconds(session, RECIPE, 50) == pytest.approx(100)
        assert jobs.expected_seconds(session, other, 50) is None
        assert jobs.expected_seconds(session, larger, 50) is None


def test_unknown_job_is_not_found(sessions: Sessions) -> None:
    with pytest.raises(JobNotFound), sessions.begin() as session:
        actions.cancel(session, "job_none")


def test_job_pages_go_from_newest_to_oldest(sessions: Sessions) -> None:
    created = [create_job(sessions) for _ in range(5)]
    with sessions.begin() as session:
        first = [job.id for job in jobs.list_jobs(session, 3, None)]
        second = [job.id for job in jobs.list_jobs(session, 3, first[-1])]
    assert first + second == created[::-1]


def test_late_begin_is_leased_again(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create_job(sessions)
    for _ in range(2):
        with sessions.begin() as session:
            register(session)
            assert [given.job_id for given in scheduler.schedule(session)] == [job_id]
            assert leases.not_started(session, "worker") == {(job_id, 1)}
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE leases SET placed_at = now() - interval '11 seconds'"))
