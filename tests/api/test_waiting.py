"""Requests that wait for the first of their kind hold few threads of the API."""

from concurrent.futures import ThreadPoolExecutor

from api import idempotency
from store.access import idempotent_requests
from store.access.idempotent_requests import Asked, First
from store.session import Sessions
from tests.service import until


def test_many_of_one_owner_that_wait_delay_no_other(sessions: Sessions) -> None:
    asked = Asked("bob", "POST /jobs", "one", "0" * 64, False)
    with sessions.begin() as session:
        first = idempotent_requests.begin(session, asked)
    assert isinstance(first, First)

    def repeat(_: int) -> str:
        try:
            return idempotency.once(sessions, asked, lambda _: "made", lambda resource: resource)
        except idempotency.StillAtWork:
            return "still at work"

    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(repeat, number) for number in range(40)]
        until(lambda: sum(answer.done() for answer in answers) == 33)
        with sessions.begin() as session:
            idempotent_requests.settle(session, first.id, "job_1")
        told = sorted(answer.result() for answer in answers)
    assert told == ["job_1"] * 7 + ["still at work"] * 33
    assert not idempotency._waiters
