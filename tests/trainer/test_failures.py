from pathlib import Path

import pytest
import torch

from contract.failure import Failure, FailureReason, InputError
from trainer.failures import failure_of, write_failure


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError(FailureReason.DATASET_CHANGED, "changed"), FailureReason.DATASET_CHANGED),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureReason.OUT_OF_MEMORY),
        (MemoryError(), FailureReason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), FailureReason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried 9 bytes"), FailureReason.OUT_OF_MEMORY),
        (OSError(12, "Cannot allocate memory"), FailureReason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might ..."), FailureReason.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), FailureReason.OUT_OF_MEMORY),
        (RuntimeError("cudaErrorMemoryAllocation"), FailureReason.OUT_OF_MEMORY),
        (OSError(28, "No space left on device"), FailureReason.DISK_FULL),
        (OSError(122, "Disk quota exceeded"), FailureReason.DISK_FULL),
        (OSError(27, "File too large"), FailureReason.DISK_FULL),
        (RuntimeError("I/O error: File too large (os error 27)"), FailureReason.DISK_FULL),
        (RuntimeError("I/O error: No space left on device (os error 28)"), FailureReason.DISK_FULL),
        (ZeroDivisionError("division by zero"), FailureReason.TRAINER_CRASHED),
    ],
)
def test_an_error_has_the_reason_that_its_owner_can_act_on(error: Exception, reason: FailureReason) -> None:
    assert failure_of(error).reason == reason


def test_an_unexpected_error_is_told_by_its_type_and_message() -> None:
    assert failure_of(ZeroDivisionError("division by zero")).message.endswith("ZeroDivisionError: division by zero")


def test_the_first_failure_is_kept(tmp_path: Path) -> None:
    cause = Failure(reason=FailureReason.OUT_OF_MEMORY, message="the cause")
    write_failure(cause, tmp_path / "error.json")
    write_failure(Failure(reason=FailureReason.TRAINER_CRASHED, message="connection closed"), tmp_path / "error.json")
    assert Failure.model_validate_json((tmp_path / "error.json").read_bytes()) == cause
    assert [file.name for file in tmp_path.iterdir()] == ["error.json"]


def test_a_failure_that_cannot_be_written_is_no_failure_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failure(Failure(reason=FailureReason.DISK_FULL, message="the server's disk is full"), tmp_path / "gone" / "e")
    assert "the server's disk is full" in capsys.readouterr().err
