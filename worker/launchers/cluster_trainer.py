"""Follows a trainer that a cluster's engine runs, from its submission to its end."""

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from contract.failure import Failure, FailureCode
from contract.run_dir import RunDir, list_states
from store.scheduling import reasons
from store.scheduling.situation import Wait
from worker.launchers.cluster_node import ALIVE, STOP
from worker.launchers.launcher import Ended

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 3.0
_SECONDS_TO_AN_END = 1.0
"""Between two looks once the job is about to end."""
_SECONDS_BETWEEN_POSITIONS = 30.0
"""Each is a look at all that waits in the queue."""
_TICK = 0.25


class ClusterUnreachable(Exception):
    """The cluster's engine has not answered, or not in time."""


class ClusterRefused(Exception):
    """The words of the cluster's engine."""


class ClusterFault(Exception):
    """What is wrong with a cluster or a profile, and what to do. Each argument is a fault."""


class ClusterTrainer(ABC):
    """A Trainer. A thread of this process does all that waits for the cluster's engine."""

    def __init__(self, name: str, folder: RunDir, state: Path | None, claim: str, exit_file: str) -> None:
        """`claim` and `exit_file` are files of the run folder: the start that has the attempt, and its exit code."""
        self._name = name
        self._folder = folder
        self._resumed_from = state
        self._claim_file = folder.path / claim
        self._exit_file = folder.path / exit_file
        self._wait: Wait | None = reasons.in_cluster_queue("submitted").wait(1, None)
        self._ended: Ended | None = None
        self._stop = self._kill = False
        self._wake = threading.Event()
        self._position, self._position_at, self._reason = 1, -math.inf, ""
        self._thread = threading.Thread(target=self._follow, name=f"cluster {name}", daemon=True)

    def poll(self) -> Ended | None:
        return self._ended

    def wait(self) -> Ended:
        self._thread.join()
        assert self._ended is not None
        return self._ended

    def stop(self) -> None:
        self._stop = True
        self._wake.set()

    def kill(self) -> None:
        self._kill = True
        self._wake.set()

    def waits(self) -> Wait | None:
        return self._wait

    @abstractmethod
    def _look(self) -> None:
        """Submits the job, notes why it waits, carries out a request to stop, or sets `_ended`."""

    @abstractmethod
    def _refused(self, error: ClusterRefused) -> None:
        """The engine has refused something in a look."""

    def _close(self) -> None:  # noqa: B027 - only some have a connection
        """After the last look."""

    @property
    def _is_to_end(self) -> bool:
        return self._stop or self._kill

    def _follow(self) -> None:
        while self._ended is None:
            self._give_sign()
            try:
                self._look()
            except ClusterUnreachable as error:
                log.warning("%s: the cluster does not answer: %s", self._name, error)
                if self._wait is not None:
                    self._wait = reasons.cluster_unreachable().wait(1, None)
            except ClusterRefused as error:
                log.error("%s: the cluster refuses: %s", self._name, error)
                self._refused(error)
            except Exception:
                log.exception("%s: the next look at the cluster tries again", self._name)
            self._rest()
        self._close()

    def _give_sign(self) -> None:
        """To the nodes, which see it while the cluster's engine is away too."""
        try:
            self._file(STOP if self._is_to_end else ALIVE).touch()
        except OSError as error:
            log.warning("%s: the nodes get no sign of this worker: %s", self._name, error)

    def _rest(self) -> None:
        """Until the next look is due, or there is something to do."""
        since = time.monotonic()
        while self._ended is None and not self._wake.wait(_TICK):
            ends = self._is_to_end or self._exit_file.exists()
            if time.monotonic() - since > (_SECONDS_TO_AN_END if ends else _SECONDS_BETWEEN_LOOKS):
                break
        self._wake.clear()

    def _give_up(self, message: str) -> None:
        """Ends the attempt, unless it may have begun."""
        log.error("%s: %s", self._name, message)
        if self._claim():
            self._ended = Ended(1, Failure(code=FailureCode.DEVICES_UNAVAILABLE, message=message))

    def _end_before_submission(self) -> None:
        """Where a submission got no reply, its job ends as soon as it starts."""
        if self._claim():
            self._ended = Ended(128 + 15)

    def _claim(self) -> bool:
        """Takes the attempt, so that a submission whose reply was lost does not. False where a start has it."""
        with suppress(FileExistsError):
            self._claim_file.open("x").close()
            return True
        return False

    def _note_queue(self, reason: str, find_position: Callable[[], int], start: float | None) -> None:
        is_old = time.monotonic() - self._position_at > _SECONDS_BETWEEN_POSITIONS
        if is_old or reason != self._reason:
            self._position, self._position_at, self._reason = find_position(), time.monotonic(), reason
        self._wait = reasons.in_cluster_queue(reason).wait(self._position, start)

    def _exit_code(self) -> int | None:
        """What the trainer has left; None where it was killed."""
        code = read_stripped(self._exit_file)
        return int(code) if code.isdigit() else None

    def _has_saved(self) -> bool:
        """A training checkpoint further than that which it resumed from."""
        resumed = self._resumed_from.name if self._resumed_from else None
        return any(state.name != resumed for state in list_states([self._folder]))

    def _file(self, name: str) -> Path:
        return self._folder.path / name


def read_stripped(file: Path) -> str:
    """Empty where there is none."""
    with suppress(FileNotFoundError):
        return file.read_text().strip()
    return ""
