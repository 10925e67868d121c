import threading

import pytest

from api.errors import TooManyRequests
from api.jobs.turns import Turns
from tests.support.waiting import until


def test_owners_take_turns_without_delaying_others() -> None:
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


def test_impatient_turn_is_refused_and_released() -> None:
    turns = Turns(most_waiting=1, patience=0.01)
    with turns.of("bob"), pytest.raises(TooManyRequests), turns.of("bob"):
        pass
    with turns.of("bob"):
        pass
    assert not turns._present
    assert not turns._turns
