"""Decides how an attempt ended, from what it left. Pure."""

import re
import signal
from dataclasses import dataclass

from contract.events import Done
from contract.failure import Failure, FailureReason
from contract.status import JobStatus, Wish

# torchrun exits with 1 whatever became of its ranks; its report in the log says more: "exitcode  : -9 (pid: 4242)".
_RANK_EXIT_CODE = re.compile(r"exitcode\s*:\s*(-\d+)")


@dataclass(frozen=True)
class Outcome:
    status: JobStatus
    failure: Failure | None = None


def decide(
    exit_code: int, done: Done | None, error: Failure | None, wish: Wish | None, draining: bool, log_tail: str
) -> Outcome:
    """How an attempt ended.

    done: the trainer's last word, where it had one. It counts more than the exit code: torchrun exits with 1 when it is
    told to stop, however well its ranks have ended, and what a completed run has saved is there whatever comes after.
    error: its error.json, where it wrote one. draining: its worker told it to stop, for reasons of its own.
    exit_code: the guard's, 128 + n where signal n ended the launcher.
    """
    if done is not None and done.completed:
        return Outcome(JobStatus.SUCCEEDED)
    if wish is Wish.CANCEL:
        return Outcome(JobStatus.CANCELLED)
    if error is not None:
        return Outcome(JobStatus.FAILED, error)
    if done is not None or draining:
        return Outcome(JobStatus.QUEUED)  # it was told to stop, but not by its owner
    return Outcome(JobStatus.FAILED, _unexplained(exit_code, log_tail))


def _unexplained(exit_code: int, log_tail: str) -> Failure:
    if "No space left on device" in log_tail:
        return Failure(reason=FailureReason.DISK_FULL, message="the server's disk is full; see the end of the log")
    killed_by = _signal(exit_code, log_tail)
    if killed_by is None:
        message = f"the trainer ended with exit code {exit_code} and did not say why; see the end of its log"
        return Failure(reason=FailureReason.TRAINER_CRASHED, message=message)
    message = f"the trainer was killed by {_name(killed_by)}"
    if killed_by == signal.SIGKILL:
        message += ": someone's kill -9, or the kernel when memory ran out; a smaller batch.micro_batch needs less"
    return Failure(reason=FailureReason.TRAINER_KILLED, message=message)


def _signal(exit_code: int, log_tail: str) -> int | None:
    if exit_code > 128:
        return exit_code - 128
    rank = _RANK_EXIT_CODE.search(log_tail)
    return -int(rank.group(1)) if rank else None


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
