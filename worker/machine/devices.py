"""Finds who uses this machine's devices, and assigns some of them to a trainer.

Devices have the numbers of contract.machine.Machine.
"""

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pynvml

from contract.machine import ExternalProcess, Machine
from runtime import processes
from worker.machine.inventory import driver

log = logging.getLogger(__name__)

DESKTOP_MEMORY = 2**30
"""Bytes of a GPU: a desktop uses less, a program that computes uses more."""

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
    """The processes on each GPU that are not ours.

    `is_ours` is called with pids; `leased` are the devices of running jobs. A GPU whose driver does not answer counts
    as used, so that no job gets it.
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
        # In a container the driver may hide the processes of others.
        hidden = not leased and use.memory is not None and use.memory > DESKTOP_MEMORY
        return [ExternalProcess(pid=None, name=_UNSEEN, memory_bytes=use.memory)] if hidden else []
    return list(_foreign(use, is_ours, leased))


def _foreign(use: _Use, is_ours: Callable[[int], bool], leased: bool) -> Iterator[ExternalProcess]:
    drawing = [process for process in use.drawing if (process.memory or 0) >= DESKTOP_MEMORY]
    for pid, memory in {process.pid: process.memory for process in drawing + use.computing}.items():
        name = processes.name_of(pid)
        # In a container a pid is the host's. On a leased device it is most likely our trainer's.
        if not (leased if name is None else is_ours(pid)):
            yield ExternalProcess(pid=pid, name=name or _UNSEEN, memory_bytes=memory)


def _use(handle: Any) -> _Use:
    # With explicit versions: the plain names raise something other than an NVMLError if one is missing.
    computing = _query(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle)
    drawing = _query(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, handle)
    return _Use(_processes(computing), _processes(drawing), _memory(handle))


def _processes(listed: Sequence[Any] | None) -> list[_Process]:
    return [_Process(process.pid, process.usedGpuMemory) for process in listed or []]


def _memory(handle: Any) -> int | None:
    """Bytes in use; None if the driver does not say."""
    # The first version of this call includes what the driver reserves, which may be 1 GiB.
    info = _query(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    return None if info is None else int(info.used)


def _query(function: Callable[..., Any], *arguments: Any) -> Any:
    """The driver's answer; None if it has none: before R510, under WSL, for GPUs that share the machine's memory."""
    try:
        return function(*arguments)
    except (
        pynvml.NVMLError_FunctionNotFound,
        pynvml.NVMLError_NoPermission,
        pynvml.NVMLError_NotSupported,
        pynvml.NVMLError_Unknown,
    ):
        return None


def memory_used(machine: Machine, numbers: Sequence[int]) -> dict[int, int]:
    """Bytes in use on each of these GPUs, without those whose driver does not say."""
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
    """Warns once per message: the driver is queried every second."""
    log.warning(message)


def environment(machine: Machine, numbers: Sequence[int]) -> dict[str, str]:
    """Variables that restrict a trainer to these devices, in this order: GPU UUIDs for CUDA, or cores for the guard."""
    if machine.gpus:
        return {"CUDA_VISIBLE_DEVICES": ",".join(machine.gpus[number].uuid for number in numbers)}
    cores = sorted({core for number in numbers for core in _cores(number, machine.slots)})
    return {"FINETUNED_CORES": ",".join(map(str, cores))}


def _cores(slot: int, slots: int) -> list[int]:
    """A slot's part of the cores that this process may use. If there are more slots than cores, some share one."""
    cores = sorted(os.sched_getaffinity(0))
    first = len(cores) * slot // slots
    return cores[first : max(first + 1, len(cores) * (slot + 1) // slots)]
