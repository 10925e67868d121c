"""The device's name and memory."""

import os
from pathlib import Path

import torch

from contract.failure import FailureCode, InputError


def this_device() -> torch.device:
    """The device of this rank. Raises InputError if the machine has fewer GPUs than ranks, or if this process was given
    GPUs that torch cannot use."""
    if torch.cuda.is_available():
        rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= gpus:
            message = f"resources.gpus: more ranks than the {gpus} GPUs of this machine; each rank needs its own GPU"
            raise InputError(FailureCode.DEVICES_UNAVAILABLE, message, "resources.gpus")
        return torch.device("cuda", rank)
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    if given.startswith(("GPU-", "MIG-")) or given[:1].isdecimal():
        message = (
            f"CUDA cannot be used, and this trainer was given the GPUs {given}: {_cuda_error()}; look at nvidia-smi on "
            "the worker's machine, or in its container"
        )
        raise InputError(FailureCode.DEVICES_UNAVAILABLE, message)
    return torch.device("cpu")


def _cuda_error() -> str:
    """Why torch cannot use CUDA, in its own words."""
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        return str(error).strip().partition("\n")[0]
    return "torch gives no reason"


def describe(device: torch.device) -> str:
    """The device's name, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: allocated on a GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: its peak is inherited from the process that launched this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
