import threading

import pytest

from api.errors import TooManyRequests
from api.jobs.turns import Turns
from tests.service import until


def test_one_owner_takes_turns_and_others_do_not_wait() -> None:
    turns = Turns(most_waiting=1, patience=30)
    done: list[str] = []

    def take(owner: str) -> None:
        with turns.of(owner):
            done.append(owner)

    with turns.of("bob"):
        take("anna")
        second = threading.Thread(target=take, args=("bob",))
        second.start()
        until(lambda: turns._present["bob"] == 2)
        with pytest.raises(TooManyRequests):
            take("bob")
        assert done == ["anna"]
    second.join(30)
    assert done == ["anna", "bob"]


def test_who_waits_too_long_is_refused_and_nothing_is_kept() -> None:
    turns = Turns(most_waiting=1, patience=0.01)
    with turns.of("bob"), pytest.raises(TooManyRequests), turns.of("bob"):
        pass
    with turns.of("bob"):
        pass
    assert not turns._present
    assert not turns._turns
