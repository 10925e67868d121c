"""Publishes what this worker's jobs have saved, and makes exports: `python -m worker.publishing.daemon WORKER_PID`.

A process of its own, and no thread of the worker's: obstore's threads do not outlive a fork, and the worker forks a
process for each job; and neither digests of gigabytes nor pictures may keep the keeper from its beat.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from sqlalchemy.exc import OperationalError

from runtime import logs
from runtime.settings import read_settings
from storage.backends import make_storage
from storage.errors import StorageUnavailable
from store.session import make_engine, make_sessions
from worker.publishing.exporter import export_next
from worker.publishing.publisher import publish_all
from worker.settings import WorkerSettings
from worker.supervise.guard import PR_SET_PDEATHSIG, prctl

log = logging.getLogger(__name__)

SECONDS_BETWEEN_ROUNDS = 0.25
SECONDS_BETWEEN_EXPORTS = 1.0
SECONDS_BETWEEN_STARTS = 1.0
LONGEST_END = 10.0
"""Seconds that it has to finish with what it is about."""
_LONGEST_WAIT = 10.0
"""Seconds."""


def main() -> None:
    worker = int(sys.argv[1])
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker:
        return  # it died before we could ask to be told: what is imported above takes seconds
    settings = read_settings(WorkerSettings)
    logs.configure(settings)
    stop = _Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.ask())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, whose jobs end first
    sessions, storage = make_sessions(make_engine(settings)), make_storage(settings)
    publish = partial(publish_all, sessions, settings, storage)
    export = partial(export_next, sessions, settings, storage, lambda: stop.asked)
    # A thread that lives as long as this process, so that an export, which takes minutes, holds up nobody.
    exporting = threading.Thread(target=_repeat, args=(export, SECONDS_BETWEEN_EXPORTS, stop), name="exporter")
    exporting.start()
    log.info("the clerk is at work")
    _repeat(publish, SECONDS_BETWEEN_ROUNDS, stop)
    exporting.join()


class _Stop:
    """No threading.Event: a signal's handler that sets one waits for ever where it interrupts a wait for it."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self) -> None:
        self.asked = True


def _repeat(duty: Callable[[], object], seconds: float, stop: _Stop) -> None:
    """Until it is to stop; less often as long as something is away."""
    wait = seconds
    while not stop.asked:
        try:
            duty()
            wait = seconds
        except Exception as error:
            wait = min(2 * wait, _LONGEST_WAIT)
            expected = isinstance(error, StorageUnavailable | OperationalError)
            log.warning("waits %s s: %s", wait, error, exc_info=not expected)
        until = time.monotonic() + wait
        while not stop.asked and time.monotonic() < until:
            time.sleep(SECONDS_BETWEEN_ROUNDS)


class Clerk:
    """The process, as its worker has it."""

    def __init__(self) -> None:
        self._ends = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def keep(self) -> None:
        """Starts it, again and again where it dies. From a thread that lives as long as the worker: it ends with
        that."""
        while not self._ends.is_set():
            command = [sys.executable, "-m", "worker.publishing.daemon", str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._process.wait()
            self._ends.wait(SECONDS_BETWEEN_STARTS)

    def stop(self) -> None:
        self._ends.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(LONGEST_END)
            except subprocess.TimeoutExpired:
                self._process.kill()  # what it is about is taken up again
                self._process.wait()


if __name__ == "__main__":
    main()
