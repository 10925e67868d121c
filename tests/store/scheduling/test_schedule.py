"""The planner's decisions, written to the database."""

import threading
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from contract.machine import ExternalProcess
from contract.status import JobStatus, RequestedAction
from store.access import quotas
from store.jobs import actions, attempts, jobs, progress, transitions
from store.jobs.attempts import AttemptEnd
from store.jobs.progress import Cursor
from store.models import Job
from store.scheduling import scheduler, workers
from store.session import Sessions
from tests.support.jobs import LEASE, RETRIES, begin, claim, create_job, get_job, make_recipe, register


def run(sessions: Sessions) -> list[tuple[str, list[int], int]]:
    """What is given and begun now: (job, devices, rank)."""
    with sessions.begin() as session:
        return [(part.job_id, part.devices, part.rank) for part in begin(session)]


def add_worker(sessions: Sessions, name: str, slots: int) -> None:
    with sessions.begin() as session:
        register(session, name, slots)


def why(sessions: Sessions, job_id: str) -> str:
    with sessions.begin() as session:
        return scheduler.outlook(session, [jobs.get(session, job_id)])[job_id].reason


def test_job_has_its_devices_alone(sessions: Sessions) -> None:
    first, second, _ = (create_job(sessions, resources={"gpus": gpus}) for gpus in (2, 1, 3))
    add_worker(sessions, "a", slots=4)
    assert run(sessions) == [(first, [0, 1], 0), (second, [2], 0)]


def test_owner_runs_as_many_jobs_as_allowed(sessions: Sessions) -> None:
    with sessions.begin() as session:
        quotas.set_limits(session, quotas.EVERYBODY, quotas.Limits(1, None, None))
        quotas.set_limits(session, "anna", quotas.Limits(2, None, None))
    annas = [create_job(sessions, "anna") for _ in range(3)]
    bobs = [create_job(sessions, "bob") for _ in range(2)]
    add_worker(sessions, "a", slots=9)
    assert {job for job, _, _ in run(sessions)} == {annas[0], annas[1], bobs[0]}
    assert run(sessions) == []
    assert why(sessions, bobs[1]) == "The owner already runs 1 job, the most that may run at once."
    with sessions.begin() as session:
        attempts.finish(session, bobs[0], 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [bobs[1]]


def test_ended_job_makes_room(sessions: Sessions) -> None:
    first, second = create_job(sessions), create_job(sessions)
    add_worker(sessions, "a", slots=1)
    assert [job for job, _, _ in run(sessions)] == [first]
    assert run(sessions) == []
    with sessions.begin() as session:
        attempts.finish(session, first, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [second]


def test_job_on_two_machines_begins_on_both(sessions: Sessions) -> None:
    job_id = create_job(sessions, resources={"nodes": 2, "gpus": 2})
    add_worker(sessions, "a", slots=2)
    assert run(sessions) == []
    add_worker(sessions, "b", slots=2)
    assert run(sessions) == [(job_id, [0, 1], 0), (job_id, [0, 1], 1)]
    assert get_job(sessions, job_id).worker == "a"


def test_only_willing_jobs_share_a_device(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    sharing = [create_job(sessions, resources={"allow_sharing": True}) for _ in range(3)]
    alone = create_job(sessions)
    assert [job for job, _, _ in run(sessions)] == sharing[:2]
    for job_id in sharing[:2]:
        with sessions.begin() as session:
            attempts.finish(session, job_id, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [sharing[2]]
    assert alone not in [job for job, _, _ in run(sessions)]


def test_device_that_another_program_holds_is_not_given(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    external_processes = [ExternalProcess(pid=7, name="blender", memory_bytes=2**33)]
    for held, given in ((external_processes, []), ([], [(job_id, [0], 0)])):
        with sessions.begin() as session:
            workers.heartbeat(session, "a", "first", {0: held}, draining=False)
        assert run(sessions) == given


def test_worker_that_drains_or_is_silent_gets_nothing(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    for change in ("draining = true", "draining = false, seen_at = now() - interval '11 s'"):
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE workers SET {change}"))
        assert run(sessions) == []
    assert "none is there" in why(sessions, job_id)
    add_worker(sessions, "a", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_higher_priority_preempts_a_willing_job(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    low = create_job(sessions, scheduling={"preemptible": True})
    run(sessions)
    high = create_job(sessions, scheduling={"priority": 10})
    for _ in range(2):
        assert run(sessions) == []
    assert get_job(sessions, low).requested_action is RequestedAction.PREEMPT
    with sessions.begin() as session:
        reported = [each.data for each in progress.events_since(session, low, Cursor(), 100) if each.type == "log"]
    assert [each["message"] for each in reported] == [
        "preempted by a job of a higher priority: it saves, and goes on when there is room"
    ]
    with sessions.begin() as session:
        attempts.finish(session, low, 1, AttemptEnd(JobStatus.QUEUED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [high]
    with sessions.begin() as session:
        attempts.finish(session, high, 1, AttemptEnd(JobStatus.SUCCEEDED), RETRIES)
    assert [job for job, _, _ in run(sessions)] == [low]


def test_owner_action_outweighs_preemption(sessions: Sessions) -> None:
    add_worker(sessions, "a", slots=1)
    low = create_job(sessions, scheduling={"preemptible": True})
    run(sessions)
    create_job(sessions, scheduling={"priority": 10})
    run(sessions)
    with sessions.begin() as session:
        actions.pause(session, low)
    with sessions.begin() as session:
        attempts.finish(session, low, 1, AttemptEnd(JobStatus.QUEUED), RETRIES)
    assert get_job(sessions, low).status is JobStatus.PAUSED


def test_owners_take_turns(sessions: Sessions) -> None:
    anna = [create_job(sessions, "anna") for _ in range(4)]
    bert = [create_job(sessions, "bert") for _ in range(2)]
    add_worker(sessions, "a", slots=4)
    assert {job for job, _, _ in run(sessions)} == {*anna[:2], *bert}


def test_remaining_processes_keep_their_devices(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 1, RETRIES)
    assert run(sessions) == []
    add_worker(sessions, "b", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_job_of_an_older_schema_begins_and_fails(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create_job(sessions)
    with engine.begin() as connection:
        connection.execute(sa.text("""UPDATE jobs SET recipe = '{"base_model": "m"}'"""))
    add_worker(sessions, "a", slots=1)
    assert run(sessions) == [(job_id, [0], 0)]


def test_passes_at_once_give_no_device_twice(sessions: Sessions) -> None:
    created = {create_job(sessions) for _ in range(24)}
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


def test_waiting_job_says_what_it_waits_for(sessions: Sessions) -> None:
    add_worker(sessions, "gpu-a", slots=1)
    with sessions.begin() as session:
        jobs.create(session, make_recipe())
        begin(session, LEASE)
    waiting = create_job(sessions)
    with sessions.begin() as session:
        outlook = scheduler.outlook(session, [jobs.get(session, waiting)])[waiting]
    assert outlook.position == 1
    assert "gpu-a" in outlook.reason


def test_leased_job_says_where_it_starts(sessions: Sessions) -> None:
    job_id = create_job(sessions)
    add_worker(sessions, "gpu-a", slots=1)
    with sessions.begin() as session:
        scheduler.schedule(session)
    assert why(sessions, job_id) == "The job is about to start on gpu-a."


def test_job_far_down_the_queue_says_so(sessions: Sessions) -> None:
    for _ in range(101):
        last = create_job(sessions)
    create_job(sessions, resources={"gpus": 2})
    create_job(sessions, "another")
    add_worker(sessions, "a", slots=1)
    with sessions.begin() as session:
        outlook = scheduler.outlook(session, [jobs.get(session, last)])[last]
    assert (outlook.position, outlook.reason) == (101, "The job waits for at least 100 jobs that come before it.")


def test_unfittable_jobs_of_an_owner_block_nobody(sessions: Sessions) -> None:
    for _ in range(100):
        create_job(sessions, resources={"gpus": 2, "nodes": 2})
    small = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    assert why(sessions, small) == "The job is about to start on a."
    assert [job for job, _, _ in run(sessions)] == [small]


def test_jobs_in_backoff_block_nobody(sessions: Sessions) -> None:
    kept_back = [create_job(sessions) for _ in range(101)]
    with sessions.begin() as session:
        session.execute(sa.update(Job).values(not_before=sa.func.now() + sa.text("interval '1 hour'")))
    ready = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    assert "Starts again in" in why(sessions, kept_back[0])
    assert [job for job, _, _ in run(sessions)] == [ready]


def test_overdue_job_may_end_at_once(sessions: Sessions) -> None:
    running = create_job(sessions)
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        jobs.get(session, running).expected_seconds = -1
    waiting = create_job(sessions)
    with sessions.begin() as session:
        assert scheduler.outlook(session, [jobs.get(session, waiting)])[waiting].estimated_start is not None


def test_claims_follow_the_order(sessions: Sessions) -> None:
    first, urgent = create_job(sessions), create_job(sessions, scheduling={"priority": 1})
    with sessions.begin() as session:
        taken = [claim(session), claim(session)]
    assert [job.id for job in taken if job] == [urgent, first]


def test_sharing_job_may_return_to_its_device(sessions: Sessions) -> None:
    job_id = create_job(sessions, resources={"allow_sharing": True})
    add_worker(sessions, "a", slots=1)
    run(sessions)
    with sessions.begin() as session:
        attempts.fail_lost(session, job_id, 1, RETRIES)
    assert run(sessions) == [(job_id, [0], 0)]
    with sessions.begin() as session:
        assert sorted(lease.attempt for lease in workers.list_leases(session)) == [1, 2]


def test_leases_of_a_restarted_worker_are_renewed(sessions: Sessions) -> None:
    job_id = create_job(sessions, resources={"gpus": 2})
    add_worker(sessions, "a", slots=2)
    with sessions.begin() as session:
        scheduler.schedule(session)
    add_worker(sessions, "a", slots=2)
    assert run(sessions) == [(job_id, [0, 1], 0)]


def test_silent_peer_before_the_begin_delays_nobody(sessions: Sessions, engine: sa.Engine) -> None:
    job_id = create_job(sessions, resources={"nodes": 2})
    for name in "ab":
        add_worker(sessions, name, slots=1)
    with sessions.begin() as session:
        scheduler.schedule(session)
    with sessions.begin() as session:
        assert transitions.begin(session, job_id, 1, "b", 1, LEASE) is not None
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE workers SET seen_at = now() - interval '11 s'"))
        connection.execute(sa.text("UPDATE leases SET placed_at = now() - interval '11 s'"))
    for name in "cd":
        add_worker(sessions, name, slots=1)
    # The first pass takes back what the head has not begun, and the next one what waits for the head.
    assert run(sessions) == []
    assert run(sessions) == [(job_id, [0], 0), (job_id, [0], 1)]
    assert get_job(sessions, job_id).worker == "c"


def test_unreadable_recipe_is_scheduled_by_its_shape(sessions: Sessions, engine: sa.Engine) -> None:
    unreadable, gang = create_job(sessions), create_job(sessions, resources={"gpus": 2})
    alike = create_job(sessions, resources={"gpus": 2})
    add_worker(sessions, "a", slots=5)
    with engine.begin() as connection:
        older = sa.text("""UPDATE jobs SET recipe = jsonb_set(recipe::jsonb, '{older}', '1') WHERE id = ANY(:ids)""")
        connection.execute(older, {"ids": [unreadable, gang]})
    assert run(sessions) == [(unreadable, [0], 0), (gang, [1, 2], 0), (alike, [3, 4], 0)]
