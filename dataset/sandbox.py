"""Has a file read by a process of its own, with limits on its time and its memory: a template is a program, and so is a
file that someone has packed to burst. The service goes on answering meanwhile, and its memory stays as it is."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

from contract.failure import Failure, FailureCode, InputError

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
"""None of the service's own settings: some are secret."""

_PATIENCE = 10.0  # seconds


class Stopped(Exception):
    """The service ends."""


class Busy(Exception):
    """There are as many at it as may be."""


class TooMuch(InputError):
    """It takes more time or memory than it may."""


class DatasetSandbox:
    """The processes that are at it, to be ended with the service."""

    def __init__(self, most: int = 4) -> None:
        self._free = threading.BoundedSemaphore(most)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, task: str, seconds: float, patience: float = _PATIENCE, **given: Any) -> Any:
        """The answer of dataset.__main__ to a task, as JSON gives it. Raises InputError, TooMuch, Stopped; Busy after
        `patience` seconds without a free place."""
        if not self._free.acquire(timeout=patience):
            raise Busy
        try:
            return self._run(task, seconds, given)
        finally:
            self._free.release()

    def _run(self, task: str, seconds: float, given: Mapping[str, Any]) -> Any:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Each thread of the tokenizers library takes address space.
        environment |= {"RAYON_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2"}
        child = subprocess.Popen(
            [sys.executable, "-m", "dataset"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            with self._lock:
                self._running.add(child)
                if self._stopped:
                    child.kill()
            body = json.dumps({"task": task, "seconds": seconds, **given}).encode()
            output, errors = child.communicate(body, timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise _too_much(f"takes longer than {seconds:.0f} s") from error
        finally:
            child.kill()
            child.communicate()
            with self._lock:
                self._running.discard(child)
        if self._stopped:
            raise Stopped
        if child.returncode != 0:
            raise _too_much("takes more time or memory than it may", errors.decode(errors="replace")[-2000:])
        answer = json.loads(output)
        if "failure" in answer:
            failure = Failure.model_validate(answer["failure"])
            raise InputError(failure.code, failure.message, failure.param)
        return answer["answer"]

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.kill()


def _too_much(problem: str, log: str = "") -> TooMuch:
    message = f"the file {problem} to read; are its rows, or the model's chat template, as they should be?"
    error = TooMuch(FailureCode.DATASET_INVALID, message, "dataset")
    if log:
        error.add_note(log)
    return error
