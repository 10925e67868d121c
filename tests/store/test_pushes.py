"""How many pushes an owner may have."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from contract.events import CheckpointEvent
from store import artifacts, pushes
from store.access.principal import Principal
from store.errors import QuotaExceeded
from store.jobs import jobs
from store.models import Push
from store.pushes import MOST, WantedPush
from store.session import Sessions
from tests.support.artifacts import publish_rows
from tests.support.jobs import make_recipe
from tests.support.waiting import until

ANNA = Principal("anna", admin=True, key_id=None, request_id="request")
BOB = Principal("bob", admin=True, key_id=None, request_id="request")


def save(sessions: Sessions) -> str:
    """The id of a job with an adapter."""
    with sessions.begin() as session:
        job_id = jobs.create(session, make_recipe()).id
        artifacts.add_checkpoint(session, job_id, 1, CheckpointEvent(time=1, step=5, path="a", bytes=2, final=True))
    publish_rows(sessions)
    return job_id


def request(session: Session, job_id: str, repo: str, who: Principal = ANNA) -> tuple[Push, bool]:
    return pushes.request(session, who, job_id, WantedPush("adapter.tar", repo, None, True, "hub"))


def test_owner_may_have_so_many_pushes(sessions: Sessions) -> None:
    job_id = save(sessions)
    with sessions.begin() as session:
        for number in range(MOST):
            request(session, job_id, f"org/{number}")
        with pytest.raises(QuotaExceeded, match="anna has 100 pushes that wait or run, and may have 100"):
            request(session, job_id, "org/another")
        assert not request(session, job_id, "org/0")[1]
        assert request(session, job_id, "org/another", BOB)[1]
        ended = "UPDATE pushes SET status = 'failed', error = 'no', due_at = NULL WHERE repo = 'org/0'"
        session.execute(sa.text(ended))
        assert request(session, job_id, "org/another")[1]


def test_concurrent_requests_do_not_pass_the_limit_together(sessions: Sessions, engine: sa.Engine) -> None:
    first, second = save(sessions), save(sessions)
    with sessions.begin() as session:
        for number in range(MOST - 1):
            request(session, first, f"org/{number}")

    def request_another() -> None:
        with sessions.begin() as session:
            request(session, second, "org/another")

    def waits() -> bool:
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        with engine.connect() as connection:
            return bool(connection.scalar(sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}")))

    with ThreadPoolExecutor(1) as pool:
        with sessions.begin() as session:
            request(session, first, "org/last")
            another = pool.submit(request_another)
            until(lambda: another.done() or waits())
        with pytest.raises(QuotaExceeded):
            another.result()
