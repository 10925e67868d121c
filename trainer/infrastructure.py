"""Tells faults of machines and networks, which another attempt may avoid, from faults of models and programs."""

import errno
import re
import traceback

_NETWORKS = ("httpcore", "httpx", "requests", "urllib3")
_COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
_BY_NAME = ("DistError", "AcceleratorError")
"""torch's exceptions for communication between ranks and for GPUs. Compared by name, since importing torch takes a
second."""
_MESSAGES = re.compile(
    r"\(os error \d+\)"  # Rust libraries set no errno
    r"|[Gg]loo|NCCL|nccl|TCPStore|[Ss]ocket|Connection (closed|reset|refused)|Broken pipe|[Tt]imed? ?out"
    r"|CUDA (error|driver|GPUs?|runtime)|cudaError|unhandled cuda|CU(DNN|BLAS|SOLVER|SPARSE)_STATUS|cuDNN error"
    r"|NVIDIA driver|NVML|can't start new thread"
)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEMORY_MESSAGES = (
    "out of memory",  # CUDA errors and NCCL
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
    "DefaultCPUAllocator",
    "can't allocate memory",
)


def is_infrastructure(error: Exception) -> bool:
    """True for faults of the disk, the network, a GPU or another rank."""
    if isinstance(error, OSError):
        # Libraries raise OSError without a number themselves: transformers does for a model that it cannot read.
        return error.errno is not None or isinstance(error, (ConnectionError, TimeoutError))
    message = str(error)
    if "device-side assert" in message:
        return False  # a kernel got invalid values
    names = {cls.__name__ for cls in type(error).__mro__}
    return (
        type(error).__module__.partition(".")[0] in _NETWORKS
        or not names.isdisjoint(_BY_NAME)
        or _MESSAGES.search(message) is not None
        or _was_raised_in(error, _COLLECTIVES)
    )


def _was_raised_in(error: Exception, folders: tuple[str, ...]) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(folder in frames[-1].filename for folder in folders)


def is_out_of_memory(error: Exception) -> bool:
    # By name, as above. A CPU's allocator and CUDA's libraries raise RuntimeError.
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or any(message in str(error) for message in _MEMORY_MESSAGES)
    )


def is_disk_full(error: Exception) -> bool:
    return (isinstance(error, OSError) and error.errno in _DISK_ERRORS) or any(
        f"(os error {number})" in str(error) for number in _DISK_ERRORS
    )
