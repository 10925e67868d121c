from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from contract.events import CheckpointEvent
from contract.recipe import DatasetSource
from store import artifacts, evaluations
from store.artifacts import Digests
from store.errors import EvaluationNotFound
from store.evaluations import NewEvaluation
from store.jobs import deletion, jobs
from store.models import Deletion, Job, JobEvaluation
from store.session import Sessions
from tests.support.artifacts import publish_rows
from tests.support.jobs import LEASE, create_job
from tests.support.waiting import until

SCORES = {"examples": 1}
DIGESTS = Digests([], 1, "0" * 64)


@pytest.fixture
def job_id(sessions: Sessions) -> str:
    job_id = create_job(sessions)
    with sessions.begin() as session:
        event = CheckpointEvent(time=1, step=5, path="adapter", bytes=2, final=True)
        artifacts.add_checkpoint(session, job_id, 1, event)
        ended = {"status": "succeeded", "finished_at": sa.func.now()}
        session.execute(sa.update(Job).where(Job.id == job_id).values(ended))
    publish_rows(sessions)
    return job_id


def create(sessions: Sessions, job_id: str) -> str:
    with sessions.begin() as session:
        adapter = artifacts.get(session, job_id, artifacts.ADAPTER)
        new = NewEvaluation(adapter, DatasetSource(path="rows.jsonl", sha256="0" * 64), {"limit": 3}, 3)
        return evaluations.create(session, job_id, new, None).id


def claim(sessions: Sessions, lease: timedelta = LEASE) -> JobEvaluation | None:
    with sessions.begin() as session:
        due = evaluations.next_due(session)
        if due is not None:
            evaluations.claim(session, due, "worker", lease)
        return due


def pass_pause(sessions: Sessions) -> None:
    with sessions.begin() as session:
        earlier = JobEvaluation.turn_at - timedelta(seconds=10)
        session.execute(sa.update(JobEvaluation).values(turn_at=earlier))


def deleted(sessions: Sessions) -> list[str]:
    """Names of the folders whose files are deleted."""
    with sessions.begin() as session:
        return [path.rpartition("/")[2] for path in session.scalars(sa.select(Deletion.path).order_by(Deletion.path))]


def get(sessions: Sessions, job_id: str, evaluation_id: str) -> JobEvaluation:
    with sessions.begin() as session:
        return evaluations.get(session, job_id, evaluation_id)


def test_lost_attempt_can_write_nothing_more(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    lost, again = claim(sessions, timedelta(seconds=-1)), claim(sessions)
    assert lost
    assert again
    assert (lost.attempt, again.id, again.attempt) == (1, made, 2)
    with sessions.begin() as session:
        assert not evaluations.renew(session, made, 1, LEASE)
        assert not evaluations.add_row(session, made, 1, 1, {})
        evaluations.requeue(session, made, 1, None, is_break=True)
        assert not evaluations.succeed(session, lost, SCORES, 0, DIGESTS)
    with sessions.begin() as session:
        assert evaluations.add_row(session, made, 2, 1, {"number": 1})
        assert evaluations.succeed(session, again, SCORES, 0, DIGESTS)
    with sessions.begin() as session:
        assert evaluations.succeed(session, again, SCORES, 0, DIGESTS)  # a commit that was in doubt
    assert (get(sessions, job_id, made).status, claim(sessions)) == ("succeeded", None)


def test_evaluation_without_progress_fails_after_five_breaks(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    for attempt in range(1, 6):
        assert claim(sessions)
        with sessions.begin() as session:
            evaluations.requeue(session, made, attempt, "its server crashed", is_break=True)
    failed = get(sessions, job_id, made)
    assert (failed.status, claim(sessions)) == ("failed", None)
    assert failed.failure
    assert failed.failure["message"] == "it broke off 5 times behind example 0: its server crashed"


def test_evaluation_whose_workers_are_lost_fails_in_the_end(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    claims = [claim(sessions, timedelta(seconds=-1)) for _ in range(6)]
    assert claims[-1] is None
    failure = get(sessions, job_id, made).failure
    assert failure
    assert "was lost" in failure["message"]


def test_progress_and_waiting_are_no_breaks(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    for attempt in range(1, 9):
        assert claim(sessions)
        with sessions.begin() as session:
            assert evaluations.add_row(session, made, attempt, attempt, {})
            evaluations.requeue(session, made, attempt, "it crashed", is_break=True)
    for attempt in range(9, 17):
        assert claim(sessions)
        with sessions.begin() as session:
            evaluations.requeue(session, made, attempt, "no device is free", is_break=False)
        pass_pause(sessions)
    waiting = get(sessions, job_id, made)
    assert (waiting.status, waiting.waits, waiting.done) == ("queued", "no device is free", 8)


def test_waiting_evaluation_pauses_and_deletes_nothing(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    assert claim(sessions)
    with sessions.begin() as session:
        evaluations.requeue(session, made, 1, "no device is free", is_break=False)
    assert claim(sessions) is None
    pass_pause(sessions)
    assert claim(sessions, timedelta(seconds=-1))
    assert deleted(sessions) == []
    assert claim(sessions)
    assert deleted(sessions) == [f"{made}-2"]  # that of the lost attempt


def test_stopped_worker_hands_over_without_a_pause(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    assert claim(sessions)
    with sessions.begin() as session:
        evaluations.requeue(session, made, 1, None, is_break=False)
    assert claim(sessions)


def test_waiting_evaluation_lets_others_go_first(sessions: Sessions, job_id: str) -> None:
    first, second = create(sessions, job_id), create(sessions, job_id)
    assert claim(sessions)
    with sessions.begin() as session:
        evaluations.requeue(session, first, 1, "no device is free", is_break=False)
    claimed = claim(sessions)
    assert claimed
    assert claimed.id == second


def test_deleted_model_fails_its_open_evaluations(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)
    assert claim(sessions)
    with sessions.begin() as session:
        assert deletion.delete_model(session, jobs.lock(session, job_id))
    failed = get(sessions, job_id, made)
    assert failed.failure
    assert failed.failure["message"] == f"the model of job {job_id} was deleted"
    assert f"{made}-1" in deleted(sessions)
    with sessions.begin() as session:
        assert not evaluations.renew(session, made, 1, LEASE)


def test_second_of_two_deletions_finds_nothing(sessions: Sessions, job_id: str) -> None:
    made = create(sessions, job_id)

    def delete() -> None:
        with sessions.begin() as session:
            evaluations.delete(session, job_id, made, None)

    def is_blocked() -> bool:
        with sessions() as session:
            return bool(session.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            evaluations.delete(session, job_id, made, None)
            session.flush()
            second = pool.submit(delete)
            until(is_blocked)
        with pytest.raises(EvaluationNotFound):
            second.result()
