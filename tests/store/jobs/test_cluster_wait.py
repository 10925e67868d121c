"""A running job that a cluster has not started."""

from datetime import UTC, datetime

import pytest

from contract.machine import Machine, OfferedProfile
from contract.status import JobStatus
from store.errors import StaleAttempt
from store.jobs import jobs, transitions
from store.models import Job
from store.scheduling import reasons, scheduler, workers
from store.scheduling.situation import Wait
from store.session import Sessions
from tests.support.jobs import claim, create_job, events_of_type, get_job

PRIORITY = reasons.in_cluster_queue("Priority").wait(3, 1796071210.0)


@pytest.fixture
def job(sessions: Sessions) -> Job:
    create_job(sessions)
    with sessions.begin() as session:
        found = claim(session)
        assert found is not None
        found.started_at = datetime(2020, 1, 1, tzinfo=UTC)
        return found


def record(sessions: Sessions, job: Job, *waits: Wait | None) -> Job:
    for wait in waits:
        with sessions.begin() as session:
            jobs.record_wait(session, job.id, job.attempt, wait)
    return get_job(sessions, job.id)


def test_reason_of_the_cluster_is_kept(sessions: Sessions, job: Job) -> None:
    kept = record(sessions, job, PRIORITY).cluster_wait
    assert kept is not None
    assert Wait(**kept) == PRIORITY
    assert kept["values"] == {"reason": "Priority"}


def test_time_in_the_clusters_queue_does_not_count(sessions: Sessions, job: Job) -> None:
    started = record(sessions, job, PRIORITY, None)
    assert started.cluster_wait is None
    assert started.started_at is not None
    assert started.started_at.year > 2020


def test_job_tells_of_each_kind_of_wait_once(sessions: Sessions, job: Job) -> None:
    resources = reasons.in_cluster_queue("Resources").wait(1, None)
    record(sessions, job, PRIORITY, resources, reasons.cluster_unreachable().wait(1, None), resources, None)
    assert [event["message"].split(":")[0].split(",")[0] for event in events_of_type(sessions, job.id, "log")] == [
        "The job waits in the cluster's queue",
        "The job waits for the cluster",
        "The job waits in the cluster's queue",
        "The cluster has started the job.",
    ]


def test_wait_ends_with_the_attempt(sessions: Sessions, job: Job) -> None:
    record(sessions, job, PRIORITY)
    with sessions.begin() as session:
        transitions.move(session, job.id, JobStatus.QUEUED)
    assert get_job(sessions, job.id).cluster_wait is None
    with pytest.raises(StaleAttempt):
        record(sessions, job, PRIORITY)


def test_job_of_many_nodes_takes_one_place(sessions: Sessions) -> None:
    node = Machine(gpus=[], cores=2, cpu_bf16=False, slots=2, profile="a")
    offered = OfferedProfile(name="a", node=node, max_nodes=4, max_jobs=2)
    login = Machine(gpus=[], cores=2, cpu_bf16=False, slots=2, profiles=[offered])
    first, second = (create_job(sessions, resources={"profile": "a", "nodes": 4, "gpus": 2}) for _ in range(2))
    third = create_job(sessions, resources={"profile": "a"})
    with sessions.begin() as session:
        workers.register(session, "login", "first", "localhost", login)
        placed = scheduler.schedule(session)
        assert {each.job_id: len(each.devices) for each in placed} == {first: 1, second: 1}
        waits = scheduler.outlook(session, [jobs.get(session, third)])
    assert waits[third].reason == "The job waits for 1 queue place on one machine: login has 0 of 2 free."
