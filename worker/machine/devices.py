"""Who uses this machine's devices, and how a trainer is given some of them.

Devices have the numbers of contract.machine.Machine.
"""

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pynvml

from contract.machine import ExternalProcess, Machine
from worker.machine.inventory import driver

log = logging.getLogger(__name__)

MUCH_MEMORY = 2**30
"""Bytes: a desktop has less of a GPU, what computes on it has more."""

_UNSEEN = "a process that cannot be seen from here"


class _Process(NamedTuple):
    pid: int
    memory: int | None


class _Use(NamedTuple):
    computing: list[_Process]
    drawing: list[_Process]
    memory: int | None


def external_processes(
    machine: Machine, is_ours: Callable[[int], bool], leased: Collection[int]
) -> dict[int, list[ExternalProcess]]:
    """For each GPU, the processes that use it and are not ours. `is_ours` is asked about pids; `leased` are the numbers
    of the devices that jobs have.

    A GPU whose driver does not answer counts as busy, too: it is not to be given out.
    """
    return {number: _external_processes(gpu.uuid, is_ours, number in leased) for number, gpu in enumerate(machine.gpus)}


def _external_processes(uuid: str, is_ours: Callable[[int], bool], leased: bool) -> list[ExternalProcess]:
    try:
        with driver():
            use = _use(pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError as error:
        _warn_once(f"the driver of {uuid} does not answer: {error}")
        return [ExternalProcess(pid=None, name=f"the driver does not answer: {error}", memory_bytes=None)]
    if not use.computing and not use.drawing:
        # A container may not be told of the processes of others.
        hidden = not leased and use.memory is not None and use.memory > MUCH_MEMORY
        return [ExternalProcess(pid=None, name=_UNSEEN, memory_bytes=use.memory)] if hidden else []
    return list(_foreign(use, is_ours, leased))


def _foreign(use: _Use, is_ours: Callable[[int], bool], leased: bool) -> Iterator[ExternalProcess]:
    drawing = [process for process in use.drawing if (process.memory or 0) >= MUCH_MEMORY]
    for pid, memory in {process.pid: process.memory for process in drawing + use.computing}.items():
        name = _name(pid)
        # In a container a pid is the host's: of a leased device it is most likely our trainer's.
        if not (leased if name is None else is_ours(pid)):
            yield ExternalProcess(pid=pid, name=name or _UNSEEN, memory_bytes=memory)


def _name(pid: int) -> str | None:
    """None where there is no such process, as far as this one can see."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _use(handle: Any) -> _Use:
    # By their versions: where one is missing the plain names raise what is no NVMLError.
    computing = _told(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    drawing = _told(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle)
    return _Use(_processes(computing), _processes(drawing), _memory(handle))


def _processes(listed: Sequence[Any] | None) -> list[_Process]:
    return [_Process(process.pid, process.usedGpuMemory) for process in listed or []]


def _memory(handle: Any) -> int | None:
    """Bytes in use; None where the driver cannot tell."""
    # The first version counts what the driver reserves, too, which may be 1 GiB.
    info = _told(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return None if info is None else int(info.used)


def _told(question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer; None of drivers that cannot tell: before R510, under WSL, of GPUs with the machine's own memory."""
    try:
        return question(*arguments)
    except (
        pynvml.NVMLError_FunctionNotFound,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_Unknown,
    ):
        return None


def memory_used(machine: Machine, numbers: Sequence[int]) -> dict[int, int]:
    """Bytes in use of each of the GPUs that tells; empty where there is none."""
    used = {number: _memory_used(machine.gpus[number].uuid) for number in numbers if machine.gpus}
    return {number: memory for number, memory in used.items() if memory is not None}


def _memory_used(uuid: str) -> int | None:
    try:
        with driver():
            return _memory(pynvml.nvmlDeviceGetHandleByUUID(uuid))
    except pynvml.NVMLError as error:
        _warn_once(f"the driver of {uuid} does not answer: {error}")
        return None


@functools.cache
def _warn_once(message: str) -> None:
    """The driver is asked each second."""
    log.warning(message)


def environment(machine: Machine, numbers: Sequence[int]) -> dict[str, str]:
    """What a trainer gets so that it sees these devices alone, in this order: the GPUs' UUIDs for CUDA, or the cores
    for the guard to keep it on."""
    if machine.gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(machine.gpus[number].uuid for number in numbers)}
    cores = sorted({core for number in numbers for core in _cores(number, machine.slots)})
    return {"FINETUNED_CORES": ",".join(map(str, cores))}


def _cores(slot: int, slots: int) -> list[int]:
    """Its part of the cores that this process may use; where there are more slots than cores, some share one."""
    cores = sorted(os.sched_getaffinity(0))
    first = len(cores) * slot // slots
    return cores[first : max(first + 1, len(cores) * (slot + 1) // slots)]
