"""The retry policy of the whole service: wait for a database or a storage until it is available again."""

import logging
import time
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

log = logging.getLogger(__name__)

FIRST_WAIT = 1.0
"""Seconds before the first retry; each further wait is twice as long, up to the longest."""


def until_available(
    what: str,
    unavailable: type[Exception] | tuple[type[Exception], ...],
    *,
    longest_wait: float = FIRST_WAIT,
    gives_up: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> Retrying:
    """Calls a function again for as long as it raises one of `unavailable`: `until_available(...)(function)`.

    The log names the work as `what`. Once `gives_up()` is true, the last error is raised.
    """
    return Retrying(
        retry=retry_if_exception_type(unavailable),
        wait=wait_exponential(multiplier=FIRST_WAIT, max=longest_wait),
        stop=lambda _: gives_up(),
        sleep=sleep,
        before_sleep=lambda state: _log(what, state),
        reraise=True,
    )


def _log(what: str, state: RetryCallState) -> None:
    log.warning("%s failed, retry in %g s: %s", what, state.upcoming_sleep, state.outcome and state.outcome.exception())
