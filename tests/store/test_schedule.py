"""The planner's decisions, written to the database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import sqlalchemy as sa

from contract.machine import ExternalProcess
from contract.recipe import Recipe
from contract.status import JobStatus, RequestedAction
from store import scheduler
from store.access import quotas
from store.jobs import actions, attempts, jobs, progress
from store.jobs.attempts import End
from store.jobs.progress import Cursor
from store.models import Job
from store.scheduling import workers
from store.session import Sessions
from tests.placing import LEASE, RETRIES, begin, claim, register


def create(sessions: Sessions, owner: str = "default", **recipe: Any) -> str:
    with sessions.begin() as session:
        return jobs.create(session, Recipe.model_validate({"model": "m", "dataset": "d", **recipe}), owner).id


def run(sessions: Sessions) -> list[tuple[str, list[int], int]]:
    """What is given and begun now: (job, devices, rank)."""
    with sessions.begin() as session:
        return [(part.job_id, part.devices, part.rank) for part in begin(session)]


def add_worker(sessions: Sessions, name: str, slots: int) -> None:
    with sessions.begin() as session:
        register(session, name, slots)


def get(sessions: Sessions, job_id: str) -> Job:
    with sessions.begin() as session:
        return jobs.get(session, job_id)


def why(sessions: Sessions, job_id: str) -> str:
    with sessions.begin() as session:
        return scheduler.outlook(session, [jobs.get(session, job_id)])[job_id].reason


def test_a_job_has_as_many_devices_as_it_asks_for_and_nobody_else_has_them(sessions: Sessions) -> None:
    first, second, _ = (create(sessions, resources={"gpus": gpus}) for gpus in (2, 1, 3))
    add_worker(sessions, "a", slots=4)
    assert run(sessions) == [(first, [0, 1], 0), (second, [2], 0)]


def test_an_owner_has_as_many_jobs_running_as_its_quota_says(sessions: Sessions) -> None:
    with sessions.begin() as session:
        quotas.put(session, quotas.EVERYBODY, quotas.Limits(1, None, None))
        quotas.put(session, "anna", quotas.Limits(2, None, None))
    annas = [create(sessions, "anna") for _ in range(3)]
    bobs = [create(sessions, "bob") for _ in range(2)]
    add_worker(sessions, "a", slots=9)
    assert {job for job, _, _ in run(sessions)} == {annas[0], annas[1], bobs[0]}
    assert run(sessions) == []
    assert why(sessions, bobs[1]) == "Its owner already runs 1 job, the most that may run at once."
    with sessions.begin() as session:
        attempts.finish(session, bobs[0], 1, End(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [bobs[1]]


def test_what_ends_makes_room_for_the_next(sessions: Sessions) -> None:
    first, second = create(sessions), create(sessions)
    add_worker(sessions, "a", slots=1)
    assert [job for job, _, _ in run(sessions)] == [first]
    assert run(sessions) == []
    with sessions.begin() as session:
        attempts.finish(session, first, 1, End(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [second]


def test_a_job_on_two_machines_begins_on_both(sessions: Sessions) -> None:
    job_id = create(sessions, resources={"nodes": 2, "gpus": 2})
    add_worker(sessions, "a", slots=2)
    assert run(sessions) == []
    add_worker(sessions, "b", slots=2)
    assert run(sessions) == [(job_id, [0, 1], 0), (job_id, [0, 1], 1)]
    assert get(sessions, job_id).worker == "a"


def test_only_those_that_both_allow_it_share_a_device(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    sharing = [create(sessions, resources={"allow_sharing": True}) for _ in range(3)]
    alone = create(sessions)
    assert [job for job, _, _ in run(sessions)] == sharing[:2]
    for job_id in sharing[:2]:
        with sessions.begin() as session:
            attempts.finish(session, job_id, 1, End(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [sharing[2]]
    assert alone not in [job for job, _, _ in run(sessions)]


def test_a_device_that_another_program_holds_is_not_given(sessions: Sessions) -> None:
    job_id = create(sessions)
    add_worker(sessions, "a", slots=1)
    external_processes = [ExternalProcess(pid=7, name="blender", memory_bytes=2**33)]
    for held, given in ((external_processes, []), ([], [(job_id, [0], 0)])):
        with sessions.begin() as session:
            workers.beat(session, "a", "first", {0: held}, draining=False)
        assert run(sessions) == given


def test_a_worker_that_drains_or_is_silent_gets_nothing(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create(sessions)
    add_worker(sessions, "a", slots=1)
    for change in ("draining = true", "draining = false, seen_at = now() - interval '11 s'"):
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE workers SET {change}"))
        assert run(sessions) == []
    assert "none is there" in why(sessions, job_id)
    add_worker(sessions, "a", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_a_job_of_a_higher_priority_has_one_that_allows_it_save_and_step_aside(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    low = create(sessions, scheduling={"preemptible": True})
    run(sessions)
    high = create(sessions, scheduling={"priority": 10})
    for _ in range(2):
        assert run(sessions) == []
    assert get(sessions, low).requested_action is RequestedAction.PREEMPT
    with sessions.begin() as session:
        told = [each.data for each in progress.events_since(session, low, Cursor(), 100) if each.type == "log"]
    assert [each["message"] for each in told] == [
        "preempted by a job of a higher priority: it saves, and goes on when there is room"
    ]
    with sessions.begin() as session:
        attempts.finish(session, low, 1, End(JobStatus.QUEUED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [high]
    with sessions.begin() as session:
        attempts.finish(session, high, 1, End(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [low]


def test_what_its_owner_asks_outweighs_stepping_aside(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    low = create(sessions, scheduling={"preemptible": True})
    run(sessions)
    create(sessions, scheduling={"priority": 10})
    run(sessions)
    with sessions.begin() as session:
        actions.pause(session, low)
    with sessions.begin() as session:
        attempts.finish(session, low, 1, End(JobStatus.QUEUED), RETRIES)
    assert get(sessions, low).status is JobStatus.PAUSED


def test_owners_take_turns(sessions: Sessions) -> None:
    anna = [create(sessions, "anna") for _ in range(4)]
    bert = [create(sessions, "bert") for _ in range(2)]
    add_worker(sessions, "a", slots=4)
    assert {job for job, _, _ in run(sessions)} == {*anna[:2], *bert}


def test_what_is_left_of_an_attempt_keeps_its_devices(sessions: Sessions) -> None:
    job_id = create(sessions)
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        attempts.lost(session, job_id, 1, RETRIES)
    assert run(sessions) == []
    add_worker(sessions, "b", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_a_job_of_an_older_schema_is_begun_to_say_so(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create(sessions)
    with engine.begin() as connection:
        connection.execute(sa.text("""UPDATE jobs SET recipe = '{"base_model": "m"}'"""))
    add_worker(sessions, "a", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_passes_at_once_give_no_device_twice(sessions: Sessions) -> None:
    created = {create(sessions) for _ in range(24)}
    for name in "abcd":
        add_worker(sessions, name, slots=6)
    together = threading.Barrier(8)

    def pass_() -> list[str]:
        together.wait()
        with sessions.begin() as session:
            return [given.job_id for given in scheduler.schedule(session)]

    with ThreadPoolExecutor(8) as pool:
        given = [job for jobs_ in pool.map(lambda _: pass_(), range(8)) for job in jobs_]
    assert sorted(given) == sorted(created)


def test_a_waiting_job_says_what_it_waits_for(sessions: Sessions) -> None:
    add_worker(sessions, "gpu-a", slots=1)
    with sessions.begin() as session:
        jobs.create(session, Recipe.model_validate({"model": "m", "dataset": "d"}))
        begin(session, LEASE)
    waiting = create(sessions)
    with sessions.begin() as session:
        outlook = scheduler.outlook(session, [jobs.get(session, waiting)])[waiting]
    assert outlook.position == 1
    assert "gpu-a" in outlook.reason


def test_a_job_that_was_given_devices_says_where_it_is_about_to_start(sessions: Sessions) -> None:
    job_id = create(sessions)
    add_worker(sessions, "gpu-a", slots=1)
    with sessions.begin() as session:
        scheduler.schedule(session)
    assert why(sessions, job_id) == "Is about to start on gpu-a."


def test_a_job_far_down_the_queue_says_so(sessions: Sessions) -> None:
    for _ in range(101):
        last = create(sessions)
    create(sessions, resources={"gpus": 2})
    create(sessions, "another")
    add_worker(sessions, "a", slots=1)
    with sessions.begin() as session:
        outlook = scheduler.outlook(session, [jobs.get(session, last)])[last]
    assert (outlook.position, outlook.reason) == (101, "Waits for at least 100 jobs that come before it.")


def test_a_job_starts_however_many_of_its_owners_that_fit_nowhere_stand_before_it(sessions: Sessions) -> None:
    for _ in range(100):
        create(sessions, resources={"gpus": 2, "nodes": 2})
    small = create(sessions)
    add_worker(sessions, "a", slots=1)
    assert why(sessions, small) == "Is about to start on a."
    assert [job for job, _, _ in run(sessions)] == [small]


def test_a_job_starts_however_many_of_its_owners_are_kept_back_after_a_failure(sessions: Sessions) -> None:
    kept_back = [create(sessions) for _ in range(101)]
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(not_before=sa.func.now() + sa.text("interval '1 hour'")))
    ready = create(sessions)
    add_worker(sessions, "a", slots=1)
    assert "Starts again in" in why(sessions, kept_back[0])
    assert [job for job, _, _ in run(sessions)] == [ready]


def test_what_has_outlived_its_time_may_end_at_any_moment(sessions: Sessions) -> None:
    running = create(sessions)
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        jobs.get(session, running).expected_seconds = -1
    waiting = create(sessions)
    with sessions.begin() as session:
        assert scheduler.outlook(session, [jobs.get(session, waiting)])[waiting].estimated_start is not None


def test_claims_follow_the_order(sessions: Sessions) -> None:
    first, urgent = create(sessions), create(sessions, scheduling={"priority": 1})
    with sessions.begin() as session:
        taken = [claim(session), claim(session)]
    assert [job.id for job in taken if job] == [urgent, first]


def test_a_sharing_job_may_come_back_to_a_device_that_it_has_not_quite_left(sessions: Sessions) -> None:
    job_id = create(sessions, resources={"allow_sharing": True})
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        attempts.lost(session, job_id, 1, RETRIES)
    assert run(sessions) == [(job_id, [0], 0)]
    with sessions.begin() as session:
        assert sorted(lease.attempt for lease in workers.leases(session)) == [1, 2]


def test_what_was_given_to_a_worker_before_it_started_anew_is_given_anew(sessions: Sessions) -> None:
    job_id = create(sessions, resources={"gpus": 2})
    add_worker(sessions, "a", slots=2)
    with sessions.begin() as session:
        scheduler.schedule(session)
    add_worker(sessions, "a", slots=2)
    assert run(sessions) == [(job_id, [0, 1], 0)]


def test_a_machine_that_falls_silent_before_the_first_of_its_job_has_begun_holds_the_job_up_no_longer(
    sessions: Sessions, engine: sa.Engine
) -> None:
    job_id = create(sessions, resources={"nodes": 2})
    for name in "ab":
        add_worker(sessions, name, slots=1)
    with sessions.begin() as session:
        scheduler.schedule(session)
    with sessions.begin() as session:
        assert jobs.begin(session, job_id, 1, "b", 1, LEASE) is not None
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '11 s'"))
        connection.execute(sa.text("UPDATE leases SET placed_at = now() - interval '11 s'"))
    for name in "cd":
        add_worker(sessions, name, slots=1)
    # The first pass takes back what the head has not begun, and the next one what waits for the head.
    assert run(sessions) == []
    assert run(sessions) == [(job_id, [0], 0), (job_id, [0], 1)]
    assert get(sessions, job_id).worker == "c"


def test_a_recipe_that_can_no_longer_be_read_gets_what_others_of_its_shape_get_or_any_device(
    sessions: Sessions, engine: sa.Engine
) -> None:
    unreadable, gang = create(sessions), create(sessions, resources={"gpus": 2})
    alike = create(sessions, resources={"gpus": 2})
    add_worker(sessions, "a", slots=5)
    with engine.begin() as connection:
        older = sa.text("""UPDATE jobs SET recipe = jsonb_set(recipe::jsonb, '{older}', '1') WHERE id = ANY(:ids)""")
        connection.execute(older, {"ids": [unreadable, gang]})
    assert run(sessions) == [(unreadable, [0], 0), (gang, [1, 2], 0), (alike, [3, 4], 0)]
