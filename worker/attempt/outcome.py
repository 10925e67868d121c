"""Decides how an attempt ended, from what it left. Pure."""

import re
import signal
from dataclasses import dataclass

from contract.events import Done
from contract.failure import Failure, FailureCode
from contract.status import JobStatus, RequestedAction

# torchrun exits with 1 whatever became of its ranks. Its report in the log says more: "exitcode  : -9 (pid: 4242)"; and
# which of them it has ended itself, once another had failed: "Sending process 4242 closing signal SIGTERM".
_ENDED_BY_SIGNAL = re.compile(r"exitcode\s*:\s*-(\d+) \(pid: (\d+)\)")
_ENDED_BY_TORCHRUN = re.compile(r"Sending process (\d+) closing signal")


@dataclass(frozen=True)
class Outcome:
    status: JobStatus
    failure: Failure | None = None


def decide(
    exit_code: int,
    done: Done | None,
    error: Failure | None,
    requested_action: RequestedAction | None,
    draining: bool,
    log_tail: str,
) -> Outcome:
    """How an attempt ended.

    done: the trainer's last word, where it had one. It counts more than the exit code: torchrun exits with 1 when it is
    told to stop, however well its ranks have ended, and what a completed run has saved is there whatever comes after.
    error: its error.json, where it wrote one. draining: its worker told it to stop, for reasons of its own.
    exit_code: the guard's, 128 + n where signal n ended the launcher.
    """
    if done is not None and done.completed:
        return Outcome(JobStatus.SUCCEEDED)
    if requested_action in (RequestedAction.CANCEL, RequestedAction.FORCE_CANCEL):
        return Outcome(JobStatus.CANCELLED)
    set_aside = Outcome(JobStatus.PAUSED if requested_action is RequestedAction.PAUSE else JobStatus.QUEUED)
    if done is not None and error is None:
        return set_aside  # it was told to stop, whoever did it
    failure = failure_of(exit_code, error, log_tail)
    # What broke while it was to stop anyway is nothing that the next attempt need know.
    if failure.code.retryable and (requested_action is not None or draining):
        return set_aside
    return Outcome(JobStatus.FAILED, failure)


def failure_of(exit_code: int, error: Failure | None, log_tail: str) -> Failure:
    """What `error`, its error.json, or the end of its log says of a process that has failed."""
    killed_by = _signal(exit_code, log_tail)
    # Where a rank is killed another may have written that it lost it, in whatever words.
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
    """What ended the launcher, or a rank that the launcher did not end itself."""
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
