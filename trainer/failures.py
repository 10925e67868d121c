"""Turns what went wrong into error.json, in words for the job's owner."""

import contextlib
import os
import sys
import traceback
from pathlib import Path

from contract.failure import Failure, FailureCode, InputError
from contract.fault import Fault, fault_of
from trainer.infrastructure import is_disk_full, is_infrastructure, is_out_of_memory


def failure_of(error: Exception, step: int | None = None, resumed: bool = False) -> Failure:
    """`step` is the last that this process has taken, None before its first; `resumed` where the run goes on from an
    earlier attempt's state."""
    if isinstance(error, InputError):
        return error.failure
    if is_out_of_memory(error):
        return Failure(
            code=FailureCode.OUT_OF_MEMORY,
            message="the device's memory is too small for this recipe; lower batch.micro_batch_size (and raise "
            f"batch.gradient_accumulation_steps by the same factor) or batch.max_length. It said: {_first_line(error)}",
            param="batch.micro_batch_size",
        )
    if is_disk_full(error):
        return Failure(code=FailureCode.DISK_FULL, message=f"the server's disk is full: {_first_line(error)}")
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        message = f"torch_compile: the layers cannot be compiled; leave it out. It said: {_first_line(error)}"
        return Failure(code=FailureCode.RECIPE_INVALID, message=message, param="torch_compile")
    said = f"{type(error).__name__}: {_first_line(error)}"
    if is_infrastructure(error):
        return Failure(code=FailureCode.TRAINER_CRASHED, message=f"the trainer failed: {said}")
    fault = fault_of(error, step)
    if resumed or step is not None:
        # It has trained before: two attempts that fail alike will show whether it can go on.
        where = "" if step is None else f" after step {step}"
        message = f"the trainer failed{where}: {said}"
        return Failure(code=FailureCode.TRAINER_CRASHED, message=message, fault=fault)
    return _final(error, said, fault)


def _final(error: Exception, said: str, fault: Fault) -> Failure:
    """Before the first step nothing differs between two attempts, and another one would fail alike."""
    if _came_from("transformers", error):
        message = f"model: it cannot be trained here: {said}; use another model, or another version of this one"
        return Failure(code=FailureCode.MODEL_UNSUPPORTED, message=message, param="model", fault=fault)
    message = f"the program failed, and would fail again: {said}; its log says where"
    return Failure(code=FailureCode.INTERNAL_ERROR, message=message, fault=fault)


def _came_from(package: str, error: Exception) -> bool:
    folder = getattr(sys.modules.get(package), "__path__", [""])[0]
    return any(
        folder and frame.filename.startswith(f"{folder}/") for frame in traceback.extract_tb(error.__traceback__)
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


def print_error(error: Exception) -> None:
    """To the log. An InputError is for the job's owner, who has no use for a traceback."""
    with contextlib.suppress(OSError):
        if isinstance(error, InputError):
            sys.stderr.write(f"{error}\n")
        else:
            traceback.print_exception(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
