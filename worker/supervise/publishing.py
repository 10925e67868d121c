"""Keeps the publishing process of a worker running."""

import os
import subprocess
import sys
import threading

SECONDS_BETWEEN_STARTS = 1.0
LONGEST_STOP = 10.0
"""Seconds that the process has to finish what it is doing."""


class PublishingProcess:
    """The publishing process, from its worker's side."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Starts the process, and again whenever it dies. Call it from a thread that lives as long as the worker: the
        process ends with that thread."""
        while not self._stopping.is_set():
            # -P: a folder named "worker" in the current folder is not ours.
            command = [sys.executable, "-P", "-m", "worker.publishing.daemon", str(os.getpid())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._process.wait()
            self._stopping.wait(SECONDS_BETWEEN_STARTS)

    def stop(self) -> None:
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(LONGEST_STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its work is resumed by the next one
                self._process.wait()
