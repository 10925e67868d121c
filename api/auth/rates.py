"""Limits how often an owner may send requests. It counts in this process: the limit keeps one client from drowning the
others, and is not worth a round trip per request."""

import math
import time

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from api.errors import TooManyRequests
from api.http.bounds import sharing

_WRONG_KEYS = parse("60/minute")


class Rates:
    def __init__(self, per_owner: str) -> None:
        """`per_owner` such as "6000/minute", as the limits library reads it."""
        self._per_owner = parse(per_owner)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def forget(self) -> None:
        """Counts from zero again."""
        self._limiter.storage.reset()

    def count(self, owner: str) -> None:
        """Raises TooManyRequests."""
        self._count(self._per_owner, "owner", owner)

    def count_wrong_key(self, address: str) -> None:
        """Raises TooManyRequests for an address that tries many keys."""
        self._count(_WRONG_KEYS, "wrong key", sharing(address))

    def _count(self, limit: RateLimitItem, *names: str) -> None:
        if not self._limiter.hit(limit, *names):
            reset = self._limiter.get_window_stats(limit, *names).reset_time
            seconds = max(1, math.ceil(reset - time.time()))
            raise TooManyRequests(f"more than {limit}; try again in {seconds} s", seconds)
