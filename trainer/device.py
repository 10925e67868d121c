"""The device's name and memory."""

import os
from pathlib import Path

import torch

from contract.failure import FailureCode, InputError


def this_device() -> torch.device:
    """This rank's. Raises InputError where the machine has fewer GPUs than ranks."""
    if torch.cuda.is_available():
        rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if rank >= gpus:
            message = f"resources.gpus: more ranks than the {gpus} GPUs of this machine; each wants one of its own"
            raise InputError(FailureCode.DEVICES_UNAVAILABLE, message, "resources.gpus")
        return torch.device("cuda", rank)
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """The device's name for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Not getrusage: its peak is inherited from the process that launched this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
