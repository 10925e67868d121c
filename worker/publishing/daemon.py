"""Publishes artifacts, makes exports, works through evaluations and deletes files for one worker:
`python -m worker.publishing.daemon WORKER_PID`.

It is a process rather than a thread of the worker: obstore's threads do not survive a fork, and the worker forks a
process for each job. Also, neither digests of gigabytes nor plots may delay the worker's heartbeat.
"""

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy.exc import OperationalError

from runtime import logs
from runtime.processes import end_with_parent
from runtime.retry import until_available
from runtime.settings import read_settings
from storage.backends import make_storage
from storage.errors import StorageUnavailable
from store.session import make_engine, make_sessions
from worker.evaluating.evaluator import Evaluator
from worker.publishing.cleaner import Cleaner
from worker.publishing.exporter import Exporter
from worker.publishing.publisher import publish_all
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 0.25
SECONDS_BETWEEN_EXPORTS = 1.0
SECONDS_BETWEEN_EVALUATIONS = 1.0
SECONDS_BETWEEN_DELETIONS = 1.0
SECONDS_BETWEEN_CLEANINGS = 60.0
LONGEST_WAIT = 10.0
"""Seconds between two retries."""


def main() -> None:
    if not end_with_parent(int(sys.argv[1]), signal.SIGTERM):
        return  # the imports above take seconds
    settings = read_settings(WorkerSettings)
    logs.configure(settings)
    stop = _StopFlag()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, whose jobs end first
    sessions, storage = make_sessions(make_engine(settings)), make_storage(settings)
    exporter = Exporter(sessions, settings, storage, stop.is_set)
    evaluator = Evaluator(sessions, settings, storage, stop.is_set)
    cleaner = Cleaner(sessions, settings, storage, stop.is_set)
    # An export takes minutes, so it has a thread of its own. The thread lives as long as this process: the guard of an
    # exporter ends with the thread that started it. An evaluation waits for a device, and deleting a large folder may
    # take long too.
    others = [
        ("exporting", exporter.export_next, SECONDS_BETWEEN_EXPORTS),
        ("evaluating", evaluator.evaluate_next, SECONDS_BETWEEN_EVALUATIONS),
        ("deleting", cleaner.delete_files, SECONDS_BETWEEN_DELETIONS),
        ("cleaning", cleaner.clean, SECONDS_BETWEEN_CLEANINGS),
    ]
    threads = [threading.Thread(target=_repeat, args=(*each, stop), name=each[0]) for each in others]
    for thread in threads:
        thread.start()
    log.info("the publishing process has started")
    _repeat("publishing", partial(publish_all, sessions, settings, storage), SECONDS_BETWEEN_ROUNDS, stop)
    for thread in threads:
        thread.join()


class _StopFlag:
    """Set once the process is to stop.

    No threading.Event: a signal handler that sets one deadlocks when it interrupts a wait for it.
    """

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float) -> None:
        """Sleeps for that long, or until shortly after the flag is set."""
        until = time.monotonic() + seconds
        while not self._set and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_ROUNDS)


def _repeat(name: str, duty: Callable[[], object], seconds: float, stop: _StopFlag) -> None:
    """Runs `duty` every `seconds` until the process is to stop, and less often while it fails."""

    def run() -> None:
        try:
            duty()
        except (StorageUnavailable, OperationalError):
            raise
        except Exception:
            log.exception("%s failed for an unexpected reason", name)
            raise

    retry = until_available(name, Exception, longest_wait=LONGEST_WAIT, gives_up=stop.is_set, sleep=stop.wait)
    while not stop.is_set():
        # The last error is raised when the process is to stop.
        with suppress(Exception):
            retry(run)
        stop.wait(seconds)


if __name__ == "__main__":
    main()
