"""Why a job was refused or failed, so that its owner can act on it.

InputError      the input cannot work: a 4xx at POST /jobs, or `failed` if only the trainer could know
Failure         the same as a record: error.json in the run folder, and the job's row
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from pydantic import BaseModel

from contract.fault import Fault


class FailureCode(StrEnum):
    RECIPE_INVALID = "recipe_invalid"
    DATASET_NOT_FOUND = "dataset_not_found"
    DATASET_INVALID = "dataset_invalid"
    DATASET_CHANGED = "dataset_changed"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_UNSUPPORTED = "model_unsupported"
    TARGET_MODULES_UNMATCHED = "target_modules_unmatched"
    PRECISION_UNAVAILABLE = "precision_unavailable"
    DEVICES_UNAVAILABLE = "devices_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    DOES_NOT_FIT = "does_not_fit"
    LOSS_NOT_FINITE = "loss_not_finite"
    DISK_FULL = "disk_full"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    TRAINER_KILLED = "trainer_killed"
    TRAINER_CRASHED = "trainer_crashed"
    WORKER_FAILED = "worker_failed"
    WORKER_LOST = "worker_lost"
    NODE_LOST = "node_lost"
    CANCELLED_IN_CLUSTER = "cancelled_in_cluster"
    INTERNAL_ERROR = "internal_error"

    @property
    def retryable(self) -> bool:
        """True if the same recipe may succeed on another try, because a machine was or may have been at fault."""
        return self in _INFRASTRUCTURE


_INFRASTRUCTURE = frozenset(
    {
        FailureCode.DEVICES_UNAVAILABLE,
        FailureCode.DISK_FULL,
        FailureCode.STORAGE_UNAVAILABLE,
        FailureCode.TRAINER_KILLED,
        FailureCode.TRAINER_CRASHED,
        FailureCode.WORKER_FAILED,
        FailureCode.WORKER_LOST,
        FailureCode.NODE_LOST,
    }
)


class Failure(BaseModel):
    code: FailureCode
    """For programs."""
    message: str
    """For people: what was given, what is wrong with it, what to do."""
    param: str | None = None
    """Dotted path of the recipe's field that is at fault, if there is one."""
    fault: Fault | None = None
    """Location of a failure of the program itself; None if the input, a machine or a network is at fault."""


class InputError(Exception):
    """The user's input cannot work."""

    def __init__(self, code: FailureCode, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message, param=param)


@contextmanager
def dataset_errors_as(param: str) -> Iterator[None]:
    """Re-raises an InputError about `dataset` as one about `param`."""
    try:
        yield
    except InputError as error:
        failure = error.failure
        if failure.param is None or failure.param.partition(".")[0] != "dataset":
            raise
        renamed = failure.param.replace("dataset", param, 1)
        message = f"{param}: {failure.message.removeprefix('dataset: ')}"
        raise InputError(failure.code, message, renamed) from error
