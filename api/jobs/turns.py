"""Lets each owner do one costly thing at a time, so that an owner with many requests delays no other."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import TooManyRequests


class Turns:
    def __init__(self, most_waiting: int, patience: float) -> None:
        """`patience` is in seconds. Each request that waits holds one of the API's 40 threads."""
        self._most_waiting = most_waiting
        self._patience = patience
        self._lock = threading.Lock()
        self._present: Counter[str] = Counter()
        self._turns: dict[str, threading.Lock] = {}

    @contextmanager
    def of(self, owner: str) -> Iterator[None]:
        """Raises TooManyRequests."""
        with self._lock:
            if self._present[owner] > self._most_waiting:
                raise self._too_many()
            self._present[owner] += 1
            turn = self._turns.setdefault(owner, threading.Lock())
        try:
            if not turn.acquire(timeout=self._patience):
                raise self._too_many()
            try:
                yield
            finally:
                turn.release()
        finally:
            with self._lock:
                self._present[owner] -= 1
                if not self._present[owner]:
                    del self._present[owner], self._turns[owner]

    def _too_many(self) -> TooManyRequests:
        message = "adapter.target_modules: other recipes of this owner are still matching a regular expression"
        return TooManyRequests(f"{message}; send this one again when they are done", 5)
