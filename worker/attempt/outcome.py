"""Decides how an attempt ended, from what it left behind. Pure."""

import re
import signal
from dataclasses import dataclass

from contract.events import DoneEvent
from contract.failure import Failure, FailureCode
from contract.status import JobStatus, RequestedAction

# torchrun exits with 1 whatever became of its ranks. Its report in the log says more: "exitcode  : -9 (pid: 4242)". It
# also logs which ranks it has ended itself after another failed: "Sending process 4242 closing signal SIGTERM".
_ENDED_BY_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+) \(pid: (\d+)\)")
_ENDED_BY_TORCHRUN = re.compile(r"Sending process (\d+) closing signal")


@dataclass(frozen=True)
class Outcome:
    status: JobStatus
    failure: Failure | None = None


def decide(  # parameters: all that an attempt leaves
    exit_code: int,
    done: DoneEvent | None,
    error: Failure | None,
    requested_action: RequestedAction | None,
    draining: bool,
    log_tail: str,
) -> Outcome:
    """How an attempt ended. It takes six arguments because it is pure: they are all that an attempt leaves behind.

    exit_code: the guard's, 128 + n if signal n ended the launcher.
    done: the trainer's last event, if it sent it. It counts more than the exit code: torchrun exits with 1 when it is
    stopped, however well its ranks have ended, and what a completed run has saved stays saved.
    error: the trainer's error.json, if it wrote one.
    draining: the worker stopped the trainer for reasons of its own.
    """
    if done is not None and done.completed:
        return Outcome(JobStatus.SUCCEEDED)
    if requested_action in (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL):
        return Outcome(JobStatus.CANCELLED)
    set_aside = Outcome(JobStatus.PAUSED if requested_action is RequestedAction.PAUSE else JobStatus.QUEUED)
    if done is not None and error is None:
        return set_aside  # whoever stopped it
    failure = failure_of(exit_code, error, log_tail)
    # A failure while it was stopping anyway does not concern the next attempt.
    if failure.code.retryable and (requested_action is not None or draining):
        return set_aside
    return Outcome(JobStatus.FAILED, failure)


def failure_of(exit_code: int, error: Failure | None, log_tail: str) -> Failure:
    """Why a process failed, by its error.json (`error`), its exit code or the end of its log."""
    killed_by = _signal(exit_code, log_tail)
    # When a rank is killed, another one may have reported the loss as an error of its own.
    if error is not None and not (killed_by and (error.fault or error.code is FailureCode.TRAINER_CRASHED)):
        return error
    if error is None and "No space left on device" in log_tail:
        return Failure(code=FailureCode.DISK_FULL, message="the server's disk is full; see the end of the log")
    if killed_by is None:
        message = f"the trainer ended with exit code {exit_code} and did not say why; see the end of its log"
        return Failure(code=FailureCode.TRAINER_CRASHED, message=message)
    message = f"the trainer was killed by {_name(killed_by)}"
    if killed_by == signal.SIGKILL:
        message += ": someone's kill -9, or the kernel when memory ran out; a smaller batch.micro_batch_size needs less"
    return Failure(code=FailureCode.TRAINER_KILLED, message=message)


def _signal(exit_code: int, log_tail: str) -> int | None:
    """The signal that ended the launcher, or a rank that the launcher did not end itself."""
    if exit_code > 128:
        return exit_code - 128
    by_torchrun = set(_ENDED_BY_TORCHRUN.findall(log_tail))
    killed = (int(number) for number, pid in _ENDED_BY_SIGNAL.findall(log_tail) if pid not in by_torchrun)
    return next(killed, None)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
