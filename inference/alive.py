"""Waits for what a response needs next, and says meanwhile that the server still works on it."""

import queue
from collections.abc import Generator
from concurrent.futures import Future, wait
from typing import TypeVar

from contract.inference import Alive

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 5.0
"""After so long without a line comes an Alive."""


def next_of(found: "queue.SimpleQueue[T]") -> Generator[Alive, None, T]:
    while True:
        try:
            return found.get(timeout=SECONDS_BETWEEN_LINES)
        except queue.Empty:
            yield Alive()


def result_of(future: "Future[T]") -> Generator[Alive, None, T]:
    """Raises what the work raises."""
    while not wait([future], SECONDS_BETWEEN_LINES).done:
        yield Alive()
    return future.result()
