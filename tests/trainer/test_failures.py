import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.activations import ACT2FN

from contract.failure import Failure, FailureCode, InputError
from trainer.failures import failure_of, write_failure


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError(FailureCode.DATASET_CHANGED, "changed"), FailureCode.DATASET_CHANGED),
        (torch.OutOfMemoryError("CUDA out of memory"), FailureCode.OUT_OF_MEMORY),
        (MemoryError(), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried 9 bytes"), FailureCode.OUT_OF_MEMORY),
        (OSError(12, "Cannot allocate memory"), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might ..."), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."), FailureCode.OUT_OF_MEMORY),
        (RuntimeError("cudaErrorMemoryAllocation"), FailureCode.OUT_OF_MEMORY),
        (OSError(28, "No space left on device"), FailureCode.DISK_FULL),
        (OSError(122, "Disk quota exceeded"), FailureCode.DISK_FULL),
        (OSError(27, "File too large"), FailureCode.DISK_FULL),
        (RuntimeError("I/O error: File too large (os error 27)"), FailureCode.DISK_FULL),
        (RuntimeError("I/O error: No space left on device (os error 28)"), FailureCode.DISK_FULL),
    ],
)
@pytest.mark.parametrize("step", [None, 7])
def test_an_error_has_the_reason_that_its_owner_can_act_on(
    error: Exception, reason: FailureCode, step: int | None
) -> None:
    assert failure_of(error, step).code == reason


class ConnectTimeout(Exception):
    """As httpx's."""

    __module__ = "httpx"


GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242"
INFRASTRUCTURE = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    ConnectionResetError("reset by peer"),
    TimeoutError(),
    ConnectTimeout("the hub"),
    RuntimeError(GLOO),
    RuntimeError("Timed out waiting 1800000ms for recv operation to complete"),
    RuntimeError("NCCL error in: ProcessGroupNCCL.cpp:1331, unhandled system error"),
    torch.distributed.DistBackendError("the ranks cannot reach each other"),
    torch.distributed.DistNetworkError("the store has gone"),
    RuntimeError("CUDA error: uncorrectable ECC error encountered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("Found no NVIDIA driver on your system"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("I/O error: Input/output error (os error 5)"),
]


@pytest.mark.parametrize("step", [None, 7])
@pytest.mark.parametrize("error", INFRASTRUCTURE, ids=repr)
def test_infrastructure_fault_is_a_retriable_crash(error: Exception, step: int | None) -> None:
    failure = failure_of(error, step)
    assert (failure.code, failure.fault) == (FailureCode.TRAINER_CRASHED, None)
    assert failure.code.retryable


def test_failing_collective_is_infrastructure() -> None:
    failure = failure_of(raised(lambda: torch.distributed.new_group([0])))
    assert (failure.code, failure.fault) == (FailureCode.TRAINER_CRASHED, None)


OWN = [
    ZeroDivisionError("division by zero"),
    RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RecursionError("maximum recursion depth exceeded"),
    OSError("no number: raised by a library itself"),
    AssertionError(),
]


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_program_error_before_first_step_is_final(error: Exception) -> None:
    failure = failure_of(error)
    assert failure.code is FailureCode.INTERNAL_ERROR
    assert not failure.code.retryable
    assert f"{type(error).__name__}: " in failure.message


def test_program_error_of_a_resumed_run_is_tried_again() -> None:
    failure = failure_of(ZeroDivisionError("division by zero"), resumed=True)
    assert failure.code is FailureCode.TRAINER_CRASHED
    assert failure.fault is not None
    assert failure.fault.step is None


@pytest.mark.parametrize("error", OWN, ids=repr)
def test_program_error_in_a_step_has_a_fault(error: Exception) -> None:
    def fail() -> None:
        raise error

    one, same = (failure_of(raised(fail), 7) for _ in range(2))
    assert one.reason is FailureCode.TRAINER_CRASHED
    assert one.fault is not None
    assert one.fault == same.fault
    assert one.fault.location.startswith("trainer/test_failures.py:")
    assert one.fault.step == 7
    assert failure_of(error, 8).fault != one.fault


def test_error_from_model_code_blames_the_model() -> None:
    failure = failure_of(raised(lambda: ACT2FN["no such function"]))
    assert (failure.code, failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    assert "no such function" in failure.message


def raised(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


def test_the_first_failure_is_kept(tmp_path: Path) -> None:
    cause = Failure(code=FailureCode.OUT_OF_MEMORY, message="the cause")
    write_failure(cause, tmp_path / "error.json")
    write_failure(Failure(code=FailureCode.TRAINER_CRASHED, message="connection closed"), tmp_path / "error.json")
    assert Failure.model_validate_json((tmp_path / "error.json").read_bytes()) == cause
    assert [file.name for file in tmp_path.iterdir()] == ["error.json"]


def test_a_failure_that_cannot_be_written_is_no_failure_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_failure(Failure(code=FailureCode.DISK_FULL, message="the server's disk is full"), tmp_path / "gone" / "e")
    assert "the server's disk is full" in capsys.readouterr().err
