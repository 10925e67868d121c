import logging

import pytest

from runtime.retry import until_available


class Failing:
    """Fails so many times, then returns how often it was called."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionError(f"failure {self.calls}")
        return self.calls


def test_waits_double_up_to_the_longest(caplog: pytest.LogCaptureFixture) -> None:
    waits: list[float] = []
    with caplog.at_level(logging.WARNING):
        retry = until_available("job 7", ConnectionError, longest_wait=5, sleep=waits.append)
        assert retry(Failing(5)) == 6
    assert waits == [1, 2, 4, 5, 5]
    assert caplog.messages[0] == "job 7 failed, retry in 1 s: failure 1"
    assert caplog.messages[4] == "job 7 failed, retry in 5 s: failure 5"


def test_waits_stay_a_second_by_default() -> None:
    waits: list[float] = []
    until_available("job 7", ConnectionError, sleep=waits.append)(Failing(3))
    assert waits == [1, 1, 1]


def test_policy_starts_anew_for_each_call() -> None:
    waits: list[float] = []
    retry = until_available("job 7", ConnectionError, longest_wait=8, sleep=waits.append)
    retry(Failing(2))
    retry(Failing(1))
    assert waits == [1, 2, 1]


def test_last_error_is_raised_once_it_gives_up() -> None:
    work = Failing(9)
    retry = until_available("job 7", ConnectionError, gives_up=lambda: work.calls == 3, sleep=lambda _: None)
    with pytest.raises(ConnectionError, match="failure 3"):
        retry(work)


def test_other_errors_are_raised_at_once() -> None:
    work = Failing(1)
    with pytest.raises(ConnectionError):
        until_available("job 7", TimeoutError)(work)
    assert work.calls == 1
