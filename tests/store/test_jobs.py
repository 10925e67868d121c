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
from store import scheduler
from store.errors import JobNotFound, StaleAttempt
from store.jobs import actions, jobs, progress
from store.jobs.attempts import End, finish
from store.jobs.jobs import Part
from store.jobs.progress import Cursor
from store.models import Base, Job
from store.scheduling import leases, workers
from store.session import Sessions
from tests.placing import LEASE, RETRIES, claim, register
from tests.service import until

RECIPE = Recipe.model_validate({"model": "m", "dataset": "d.jsonl"})


def create(sessions: Sessions) -> str:
    with sessions.begin() as session:
        return jobs.create(session, RECIPE).id


def claimed(sessions: Sessions, lease: timedelta = LEASE) -> Job | None:
    with sessions.begin() as session:
        return claim(session, lease)


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


def test_the_job_that_has_waited_longest_comes_first(sessions: Sessions) -> None:
    first, second = create(sessions), create(sessions)
    taken = [claimed(sessions), claimed(sessions)]
    assert [job.id for job in taken if job] == [first, second]
    assert all(job.status is JobStatus.RUNNING and job.attempt == 1 for job in taken if job)
    assert claimed(sessions) is None


def test_a_job_that_is_given_devices_waits_until_its_worker_begins_it(sessions: Sessions) -> None:
    job_id = create(sessions)
    with sessions.begin() as session:
        register(session)
        (given,) = scheduler.schedule(session)
        assert (given.job_id, given.attempt, given.workers) == (job_id, 1, ["worker"])
    assert get(sessions, job_id).status is JobStatus.QUEUED
    with sessions.begin() as session:
        part = jobs.begin(session, job_id, 1, "worker", 1, LEASE)
        assert part is not None
        assert (part.devices, part.rank) == ([0], 0)
    job = get(sessions, job_id)
    assert (job.status, job.attempt, job.worker) == (JobStatus.RUNNING, 1, "worker")


def test_what_is_given_is_begun_once(sessions: Sessions) -> None:
    job_id = create(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)
    begun = []
    for _ in range(2):
        with sessions.begin() as session:
            begun.append(jobs.begin(session, job_id, 1, "worker", 1, LEASE))
    assert begun[0] is not None
    assert begun[1] is None


def test_a_job_that_is_cancelled_before_its_worker_begins_is_not_begun(sessions: Sessions) -> None:
    job_id = create(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)
    with sessions.begin() as session:
        actions.cancel(session, job_id)
    with sessions.begin() as session:
        assert jobs.begin(session, job_id, 1, "worker", 1, LEASE) is None
        assert workers.leases(session) == []


def tell_something(session: Session, job_id: str) -> None:
    jobs.tell(session, jobs.get(session, job_id), "log", {"level": "info", "message": "something"})


@pytest.mark.parametrize(
    ("write", "begins"),
    [(tell_something, True), (actions.cancel, False), (leases.take_back, False)],
    ids=["an event", "a cancel", "its devices taken back"],
)
def test_a_worker_that_begins_what_another_just_writes_to_waits_and_goes_by_what_is_written(
    sessions: Sessions, engine: sa.Engine, write: Callable[[Session, str], object], begins: bool
) -> None:
    job_id = create(sessions)
    with sessions.begin() as session:
        register(session)
        scheduler.schedule(session)

    def begin() -> Part | None:
        with sessions.begin() as session:
            return jobs.begin(session, job_id, 1, "worker", 1, LEASE)

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            write(session, job_id)
            begun = pool.submit(begin)
            until(lambda: waiting_for_a_lock(engine) == 1)
        assert (begun.result() is not None) == begins
    job = get(sessions, job_id)
    assert (job.status is JobStatus.RUNNING, job.attempt) == (begins, int(begins))
    with sessions.begin() as session:
        told = [each.data.get("status") for each in progress.events_since(session, job_id, Cursor(), 100)]
    assert len(told) == job.event_count
    assert (told[-1] == JobStatus.RUNNING) == begins


def waiting_for_a_lock(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return connection.scalar(waiting) or 0


def test_a_job_tells_first_what_is_unwise_in_its_recipe(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = jobs.create(session, RECIPE, warnings=["slow", "large"]).id
    claimed(sessions)
    with sessions.begin() as session:
        told = [(each.type, each.data) for each in progress.events_since(session, job_id, Cursor(), 100)]
    assert [kind for kind, _ in told] == ["status", "log", "log", "status"]
    assert [(data["level"], data["message"]) for kind, data in told if kind == "log"] == [
        ("warning", "slow"),
        ("warning", "large"),
    ]


def test_the_command_of_the_latest_attempt_is_kept(sessions: Sessions) -> None:
    job_id = create(sessions)
    for attempt in (1, 2):
        claimed(sessions)
        with sessions.begin() as session:
            jobs.launch(session, job_id, attempt, f"torchrun {attempt}", LEASE)
        if attempt == 1:
            with sessions.begin() as session:
                finish(session, job_id, 1, End(JobStatus.QUEUED), RETRIES)
    with pytest.raises(StaleAttempt), sessions.begin() as session:
        jobs.launch(session, job_id, 1, "torchrun 1", LEASE)
    assert get(sessions, job_id).command == "torchrun 2"


def test_a_launch_renews_the_lease(sessions: Sessions) -> None:
    job_id = create(sessions)
    claimed(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        assert jobs.overdue(session, "worker", timedelta(0)) == {job_id}
        jobs.launch(session, job_id, 1, "torchrun", LEASE)
    with sessions.begin() as session:
        assert jobs.overdue(session, "worker", timedelta(0)) == set()


def test_the_first_of_several_machines_keeps_its_lease_while_the_others_end(sessions: Sessions) -> None:
    job_id = create(sessions)
    claimed(sessions, lease=timedelta(0))
    with sessions.begin() as session:
        jobs.part_with_the_others(session, job_id, 1, LEASE)
    with sessions.begin() as session:
        assert jobs.overdue(session, "worker", timedelta(0)) == set()
        assert jobs.get(session, job_id).rendezvous == ""


def test_the_time_that_a_job_takes_is_told_by_those_like_it(sessions: Sessions, engine: sa.Engine) -> None:
    with sessions.begin() as session:
        for examples in (100, 200, 300):
            job = jobs.create(session, RECIPE, examples=examples)
            claim(session)
            finish(session, job.id, 1, End(JobStatus.SUCCEEDED), RETRIES)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET started_at = finished_at - examples * interval '2 seconds'"))
    other = RECIPE.model_copy(update={"model": "other"})
    larger = Recipe.model_validate({**RECIPE.model_dump(), "resources": {"gpus": 2}})
    with sessions.begin() as session:
        assert jobs.expected_seconds(session, RECIPE, 50) == pytest.approx(100)
        assert jobs.expected_seconds(session, other, 50) is None
        assert jobs.expected_seconds(session, larger, 50) is None


def test_an_unknown_job_is_not_found(sessions: Sessions) -> None:
    with pytest.raises(JobNotFound), sessions.begin() as session:
        actions.cancel(session, "job_none")


def test_pages_of_jobs_go_from_the_newest_to_the_oldest(sessions: Sessions) -> None:
    created = [create(sessions) for _ in range(5)]
    with sessions.begin() as session:
        first = [job.id for job in jobs.newest(session, 3, None)]
        second = [job.id for job in jobs.newest(session, 3, first[-1])]
    assert first + second == created[::-1]


def test_what_no_worker_begins_in_time_is_given_anew(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create(sessions)
    for _ in range(2):
        with sessions.begin() as session:
            register(session)
            assert [given.job_id for given in scheduler.schedule(session)] == [job_id]
            assert leases.unbegun(session, "worker") == {(job_id, 1)}
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE leases SET placed_at = now() - interval '11 seconds'"))
