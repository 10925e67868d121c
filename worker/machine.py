"""Finds out what this machine has to train with."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pynvml

from contract.machine import Gpu, Machine, has_bf16

log = logging.getLogger(__name__)


def detect(environment: Mapping[str, str]) -> Machine:
    """`environment` is the trainers'. Without a GPU, or without its driver, there are no GPUs."""
    return Machine(
        gpus=visible(list(_gpus()), environment.get("CUDA_VISIBLE_DEVICES")),
        cores=len(os.sched_getaffinity(0)),
        cpu_bf16=has_bf16(Path("/proc/cpuinfo").read_text()),
    )


def visible(gpus: Sequence[Gpu], chosen: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES lets a process see, by their numbers or the beginnings of their UUIDs; as in CUDA
    what stands after one that is not there is passed over."""
    if chosen is None:
        return list(gpus)
    seen = []
    for word in (part.strip() for part in chosen.split(",")):
        found = [gpu for number, gpu in enumerate(gpus) if word == str(number) or _begins(gpu, word)]
        if len(found) != 1:
            break
        seen += found
    return seen


def _begins(gpu: Gpu, word: str) -> bool:
    return word.startswith("GPU-") and gpu.uuid.startswith(word)


def _gpus() -> Iterator[Gpu]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return  # as on every machine without a GPU
    except pynvml.NVMLError as error:
        log.warning("the GPUs' driver does not answer, and trainers will run on the CPU: %s", error)
        return
    try:
        for number in range(pynvml.nvmlDeviceGetCount()):
            try:
                yield _gpu(number)
            except pynvml.NVMLError as error:
                log.warning("GPU %s does not answer, and is left out: %s", number, error)
    finally:
        pynvml.nvmlShutdown()


def _gpu(number: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(number)
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    except pynvml.NVMLError_NotSupported:
        memory = None
    return Gpu(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=memory,
        compute_capability=pynvml.nvmlDeviceGetCudaComputeCapability(handle),
    )
