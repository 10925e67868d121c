"""Turns what went wrong into error.json, in words for the job's owner."""

import contextlib
import errno
import os
from pathlib import Path

from contract.failure import Failure, FailureReason, InputError


def failure_of(error: Exception) -> Failure:
    if isinstance(error, InputError):
        return error.failure
    if _is_out_of_memory(error):
        return Failure(
            reason=FailureReason.OUT_OF_MEMORY,
            message="the device's memory is too small for this recipe; lower batch.micro_batch (and raise "
            f"batch.accumulation by the same factor) or batch.max_length. It said: {_first_line(error)}",
            param="batch.micro_batch",
        )
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error):
        return Failure(reason=FailureReason.DISK_FULL, message=f"the server's disk is full: {_first_line(error)}")
    return Failure(
        reason=FailureReason.TRAINER_CRASHED,
        message=f"the trainer failed: {type(error).__name__}: {_first_line(error)}",
    )


def write_failure(failure: Failure, path: Path) -> None:
    """The first rank to fail knows the cause; what the others then run into is its consequence and is not written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(failure.model_dump_json(indent=2) + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()


def _is_out_of_memory(error: Exception) -> bool:
    # By name, for torch takes a second to import. A CPU's allocator raises RuntimeError.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
