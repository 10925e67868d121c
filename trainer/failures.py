"""Turns what went wrong into error.json, in words for the job's owner."""

import contextlib
import errno
import os
import sys
from pathlib import Path

from contract.failure import Failure, FailureReason, InputError

_MEMORY_MESSAGES = (
    "out of memory",  # CUDA error: ..., NCCL
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "DefaultCPUAllocator",
    "can't allocate memory",
)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    if _is_disk_full(error):
        return Failure(reason=FailureReason.DISK_FULL, message=f"the server's disk is full: {_first_line(error)}")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        message = f"torch_compile: the layers cannot be compiled; leave it out. It said: {_first_line(error)}"
        return Failure(reason=FailureReason.RECIPE_INVALID, message=message, param="torch_compile")
    return Failure(
        reason=FailureReason.TRAINER_CRASHED,
        message=f"the trainer failed: {type(error).__name__}: {_first_line(error)}",
    )


def write_failure(failure: Failure, path: Path) -> None:
    """The first rank to fail knows the cause; what the others then run into is its consequence and is not written.

    Never raises: a failure that cannot be written is told to the log.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(failure.model_dump_json(indent=2) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"cannot write {path}: {error}\n{failure.message}\n")
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _is_out_of_memory(error: Exception) -> bool:
    # By name, for torch takes a second to import. A CPU's allocator and CUDA's libraries raise RuntimeError.
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or any(message in str(error) for message in _MEMORY_MESSAGES)
    )


def _is_disk_full(error: Exception) -> bool:
    # Rust's safetensors has no errno.
    return (isinstance(error, OSError) and error.errno in _DISK_ERRORS) or any(
        f"(os error {number})" in str(error) for number in _DISK_ERRORS
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
