import threading

import pytest

from trainer.loading import load_together
from trainer.stop import Stop


def test_both_are_loaded_at_the_same_time() -> None:
    met = threading.Barrier(2, timeout=10)

    def load(result: str) -> str:
        met.wait()
        return result

    assert load_together(Stop(), lambda: load("model"), lambda: load("data")) == ("model", "data")


@pytest.mark.parametrize("failing_first", [True, False])
def test_first_error_is_raised_at_once(failing_first: bool) -> None:
    released = threading.Event()

    def fail() -> None:
        raise ValueError("cannot be loaded")

    def load() -> None:
        released.wait(timeout=10)
        raise ValueError("too late")

    with pytest.raises(ValueError, match="cannot be loaded"):
        load_together(Stop(), fail, load) if failing_first else load_together(Stop(), load, fail)
    released.set()


def test_stop_ends_the_wait_with_nothing() -> None:
    stop, released = Stop(), threading.Event()

    def load() -> None:
        stop.requested = True
        released.wait(timeout=10)

    assert load_together(stop, load, load) is None
    released.set()
