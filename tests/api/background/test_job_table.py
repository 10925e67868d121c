"""The live table of jobs: each client ends up with what the database has, and gets nothing twice."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.background.job_table import TablePace, Viewer
from contract.events import EvaluationEvent
from contract.status import JobStatus
from store.jobs import actions, deletion
from store.jobs.attempts import AttemptEnd, finish
from store.session import Sessions
from tests.api.background.tables import ADMIN, Table, run, running
from tests.support.events import metric
from tests.support.jobs import RETRIES, begin, create_job, record_events, register


def start(sessions: Sessions, slots: int = 4) -> None:
    with sessions.begin() as session:
        register(session, slots=slots)
        begin(session)


def act(sessions: Sessions, action: Callable[..., Any], job_id: str) -> None:
    with sessions.begin() as session:
        action(session, job_id)


def test_table_follows_a_job_from_its_creation_to_its_deletion(sessions: Sessions) -> None:
    async def test() -> None:
        async with running(sessions) as table:
            ours = Table(table.stream(ADMIN, None))
            assert (await ours.take()) == {"jobs": [], "reset": True}
            job_id = create_job(sessions, name="one")
            await ours.until(lambda jobs: jobs and jobs[job_id]["queue"])
            assert ours.jobs[job_id]["queue"]["position"] == 1
            start(sessions)
            await ours.until(lambda jobs: jobs[job_id]["status"] == "running" and jobs[job_id]["devices"])
            assert (ours.jobs[job_id]["queue"], ours.jobs[job_id]["devices"]) == (None, ["worker:0"])
            record_events(sessions, job_id, *(metric(step, step, loss=1 / step) for step in range(1, 101)))
            rewards = {"reward_accuracy": 0.75, "reward_margin": 0.25}
            evaluation = EvaluationEvent(time=1, step=100, eval_loss=0.5, supervised_tokens=1)
            record_events(sessions, job_id, evaluation.model_copy(update=rewards))
            await ours.until(lambda jobs: jobs[job_id]["eval_loss"] == 0.5)
            assert rewards.items() <= ours.jobs[job_id].items()
            assert (ours.jobs[job_id]["step"], ours.jobs[job_id]["loss"]) == (100, 0.01)
            losses = ours.jobs[job_id]["losses"]
            assert (len(losses), losses[-1], losses) == (24, 0.01, sorted(losses, reverse=True))
            act(sessions, actions.pause, job_id)
            await ours.until(lambda jobs: jobs[job_id]["requested_action"] == "pause")
            with sessions.begin() as session:
                finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
            await ours.until(lambda jobs: jobs[job_id]["status"] == "succeeded" and not jobs[job_id]["devices"])
            act(sessions, deletion.delete_job, job_id)
            await ours.until(lambda jobs: not jobs)
            assert ours.resets == 1
            await ours.close()

    run(test)


def test_client_that_comes_back_gets_only_what_has_changed(sessions: Sessions) -> None:
    async def test() -> None:
        kept, changed, gone = (create_job(sessions) for _ in range(3))
        async with running(sessions) as table:
            before = Table(table.stream(ADMIN, None))
            await before.until(lambda jobs: len(jobs) == 3 and all(job["queue"] for job in jobs.values()))
            await before.close()
            act(sessions, actions.cancel, changed)
            act(sessions, actions.cancel, gone)
            act(sessions, deletion.delete_job, gone)
            again = Table(table.stream(ADMIN, before.id))
            again.jobs = before.jobs
            await again.until(lambda jobs: gone not in jobs and jobs[changed]["status"] == "cancelled")
            assert again.resets == 0
            assert again.jobs[kept]["status"] == "queued"
            await again.close()

    run(test)


@pytest.mark.parametrize("last", ["0badc0de.3", "not an id", "", "0badc0de.99999999999999999999"])
def test_client_of_another_process_begins_anew(sessions: Sessions, last: str) -> None:
    async def test() -> None:
        job_id = create_job(sessions)
        async with running(sessions) as table:
            ours = Table(table.stream(ADMIN, last))
            assert (await ours.take())["reset"]
            assert ours.jobs.keys() == {job_id}
            await ours.close()

    run(test)


def test_change_that_is_committed_late_is_not_missed(sessions: Sessions) -> None:
    """Its transaction began before others that the table has seen already."""

    async def test() -> None:
        late, early = create_job(sessions), create_job(sessions)
        async with running(sessions) as table:
            ours = Table(table.stream(ADMIN, None))
            await ours.take()
            with sessions.begin() as session:
                actions.cancel(session, late)
                session.flush()
                act(sessions, actions.cancel, early)
                await ours.until(lambda jobs: jobs[early]["status"] == "cancelled")
                assert ours.jobs[late]["status"] == "queued"
            await ours.until(lambda jobs: jobs[late]["status"] == "cancelled")
            await ours.close()

    run(test)


def test_owner_sees_own_jobs_and_no_others_ids(sessions: Sessions) -> None:
    async def test() -> None:
        annas, bobs = create_job(sessions, "anna"), create_job(sessions, "bob")
        async with running(sessions) as table:
            anna, admin = Table(table.stream(Viewer("anna", False), None)), Table(table.stream(ADMIN, None))
            await anna.take()
            await admin.take()
            assert anna.jobs.keys() == {annas}
            assert admin.jobs.keys() == {annas, bobs}
            act(sessions, actions.cancel, bobs)
            act(sessions, deletion.delete_job, bobs)
            act(sessions, actions.cancel, annas)
            await admin.until(lambda jobs: bobs not in jobs and jobs[annas]["status"] == "cancelled")
            while True:
                event = await anna.take()
                assert bobs not in json.dumps(event)
                if anna.jobs[annas]["status"] == "cancelled":
                    break
            await anna.close()
            await admin.close()

    run(test)


def test_bytes_of_a_change_do_not_grow_with_the_number_of_jobs(sessions: Sessions) -> None:
    async def cost(others: int) -> int:
        for _ in range(others):
            act(sessions, actions.cancel, create_job(sessions, "bob"))
        job_id = create_job(sessions)
        async with running(sessions) as table:
            ours = Table(table.stream(ADMIN, None))
            await ours.until(lambda jobs: jobs and jobs[job_id]["queue"])
            before = ours.bytes
            act(sessions, actions.pause, job_id)
            await ours.until(lambda jobs: jobs[job_id]["status"] == "paused")
            await ours.close()
            act(sessions, actions.cancel, job_id)
            return ours.bytes - before

    async def test() -> None:
        few, many = await cost(1), await cost(100)
        assert abs(many - few) <= 8  # digits of an id

    run(test)


def test_renewed_lease_is_no_news(sessions: Sessions) -> None:
    async def test() -> None:
        job_id = create_job(sessions)
        start(sessions)
        async with running(sessions) as table:
            ours = Table(table.stream(ADMIN, None))
            await ours.take()
            for _ in range(3):
                record_events(sessions, job_id)
                await asyncio.sleep(0.05)
            act(sessions, actions.cancel, job_id)
            event = await ours.take()
            assert [job["requested_action"] for job in event["jobs"]] == ["cancel"]
            await ours.close()

    run(test)


def test_change_is_found_by_an_index(sessions: Sessions, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = "EXPLAIN SELECT id FROM jobs WHERE changed >= 5 AND changed < 10"
        assert "ix_jobs_changed" in "".join(connection.scalars(sa.text(plan)))


def test_page_of_jobs_stays_json_for_other_clients(client: TestClient, sessions: Sessions) -> None:
    job_id = create_job(sessions)
    for accept in ("*/*", "application/json", "text/event-stream, application/json"):
        assert client.get("/jobs", headers={"accept": accept}).json()["data"][0]["id"] == job_id


def test_jobs_that_have_not_ended_are_listed_however_old(sessions: Sessions) -> None:
    async def test() -> None:
        old = create_job(sessions)
        ended = [create_job(sessions) for _ in range(3)]
        for job_id in ended:
            act(sessions, actions.cancel, job_id)
        async with running(sessions, TablePace(look_seconds=0.02, queue_seconds=0.02, newest=2)) as table:
            ours = Table(table.stream(ADMIN, None))
            event = await ours.take()
            assert [job["id"] for job in event["jobs"]] == [ended[2], ended[1], old]
            await ours.close()

    run(test)


def test_client_whose_changes_are_forgotten_begins_anew(sessions: Sessions) -> None:
    async def test() -> None:
        pace = TablePace(look_seconds=0.02, queue_seconds=0.02, most_ended=1)
        async with running(sessions, pace) as table:
            before = Table(table.stream(ADMIN, None))
            watching = Table(table.stream(ADMIN, None))
            await before.take()
            await before.close()
            await watching.take()
            for _ in range(4):
                act(sessions, actions.cancel, job_id := create_job(sessions))
                while watching.jobs.get(job_id, {}).get("status") != "cancelled":
                    await watching.take()
            again = Table(table.stream(ADMIN, before.id))
            assert (await again.take())["reset"]
            assert again.jobs == watching.jobs
            await again.close()
            await watching.close()

    run(test)
