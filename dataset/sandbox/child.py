"""Runs dataset tasks in processes of their own, with limits on time and memory. A chat template is a program, and a
packed file may expand without end; the service stays responsive and its memory stays flat."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from contract.failure import FailureCode, InputError
from dataset.sandbox.task_process import FORK_SERVER, ForkServer, TaskProcess
from dataset.sandbox.tasks import Answer, Task, TaskRequest, TaskResponse

_MAX_WAIT = 10.0  # seconds


class SandboxStopped(Exception):
    """The service is shutting down."""


class SandboxBusy(Exception):
    """As many tasks are running as are allowed at once."""


class SandboxLimitExceeded(InputError):
    """The task needs more time or memory than it may use."""


class DatasetSandbox:
    """Runs up to `max_tasks` tasks at once; stop() ends them with the service."""

    def __init__(self, max_tasks: int = 4, server: ForkServer = FORK_SERVER) -> None:
        self._server = server
        self._free = threading.BoundedSemaphore(max_tasks)
        self._running: set[TaskProcess] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, task: Task[Answer], seconds: float, max_wait: float = _MAX_WAIT) -> Answer:
        """The answer of a task that takes at most `seconds`.

        Raises InputError, SandboxLimitExceeded and SandboxStopped; SandboxBusy after `max_wait` seconds without a free
        slot.
        """
        if not self._free.acquire(timeout=max_wait):
            raise SandboxBusy
        try:
            return task.parse(self._run(task, seconds).answer)
        finally:
            self._free.release()

    def _run(self, task: Task[Answer], seconds: float) -> TaskResponse:
        request = TaskRequest.model_validate({"task": task, "seconds": seconds})
        with self._child() as child:
            try:
                output = child.communicate(request.model_dump_json().encode(), seconds)
            except TimeoutError as error:
                raise _limit_exceeded(f"takes longer than {seconds:.0f} s") from error
            errors = child.errors()
        if self._stopped:
            raise SandboxStopped
        if not output.endswith(b"\n"):  # it was killed, or has failed
            raise _limit_exceeded("takes more time or memory than it may", errors)
        response = TaskResponse.model_validate_json(output)
        if response.failure is not None:
            raise InputError(response.failure.code, response.failure.message, response.failure.param)
        return response

    @contextmanager
    def _child(self) -> Iterator[TaskProcess]:
        """A new process, which is gone at the end of the block."""
        child = self._server.fork()
        with self._lock:
            self._running.add(child)
            if self._stopped:
                child.kill()
        try:
            yield child
        finally:
            with self._lock:
                self._running.discard(child)
            child.close()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._running:
                child.kill()


def _limit_exceeded(problem: str, log: str = "") -> SandboxLimitExceeded:
    message = f"the file {problem} to read; check its rows and the model's chat template"
    error = SandboxLimitExceeded(FailureCode.DATASET_INVALID, message, "dataset")
    if log:
        error.add_note(log)
    return error
