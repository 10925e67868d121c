"""Loads model and data at the same time; the first error ends the wait, and so does SIGTERM."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from trainer.stop import Stop

A = TypeVar("A")
B = TypeVar("B")

_SECONDS_BETWEEN_LOOKS = 0.1


def load_together(stop: Stop, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B] | None:
    """What both return, each from a thread of its own; None when asked to stop before that.

    Raises what the first of them to fail raises. Then, and after None, the other is still at it: nothing can end a
    thread but the end of the process, which `os._exit` does without waiting for it.
    """
    pool = ThreadPoolExecutor(2)
    one, two = pool.submit(first), pool.submit(second)
    pool.shutdown(wait=False)
    pending: set[Future[Any]] = {one, two}
    while pending:
        if stop.asked:
            return None
        done, pending = wait(pending, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
    return one.result(), two.result()
