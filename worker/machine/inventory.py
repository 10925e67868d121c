"""Finds the devices of this machine: its GPUs, or its CPU."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import pynvml

from contract.machine import Gpu, Machine, has_bf16

log = logging.getLogger(__name__)

_lock = threading.Lock()
"""Held while the driver's library is in use, so that no thread forks meanwhile."""
_initialised = False


@contextmanager
def driver() -> Iterator[None]:
    """Opens the GPUs' driver for calls to pynvml. Raises NVMLError.

    The driver stays open: if nothing else keeps the GPUs awake, it takes 1 to 3 s to wake each of them again
    (docs.nvidia.com/deploy/driver-persistence).
    """
    global _initialised
    with _lock:
        if not _initialised:
            pynvml.nvmlInit()
            _initialised = True
        yield


def _close_before_fork() -> None:
    """Two processes must not share an open driver: each opens it when it needs it again."""
    global _initialised
    _lock.acquire()
    if _initialised:
        _initialised = False
        pynvml.nvmlShutdown()


os.register_at_fork(before=_close_before_fork, after_in_parent=_lock.release, after_in_child=_lock.release)


def detect(environment: Mapping[str, str], slots: int) -> Machine:
    """This machine, as trainers with this `environment` see it. `slots`: jobs at once if there is no GPU."""
    return Machine(
        gpus=visible(_cards(), environment.get("CUDA_VISIBLE_DEVICES")),
        cores=len(os.sched_getaffinity(0)),
        cpu_bf16=has_bf16(Path("/proc/cpuinfo").read_text()),
        slots=slots,
        memory_bytes=memory_limit(Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")),
    )


def memory_limit(meminfo: Path, groups: Path, own: Path) -> int:
    """Bytes of memory that trainers may use: the machine's, or the limit of its control groups (version 2)."""
    return min(limit for limit, _ in _limits(meminfo, groups, own))


def machine_memory_used() -> int:
    return memory_used(Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))


def memory_used(meminfo: Path, groups: Path, own: Path) -> int:
    """Bytes in use of what `memory_limit` bounds, without the file cache, which makes room when memory is needed."""
    _, group = min(_limits(meminfo, groups, own), key=itemgetter(0))
    if group is None:
        return _kilobytes(meminfo, "MemTotal") - _kilobytes(meminfo, "MemAvailable")
    cache = int((group / "memory.stat").read_text().partition("\ninactive_file ")[2].split()[0])
    return max(0, int((group / "memory.current").read_text()) - cache)


def _limits(meminfo: Path, groups: Path, own: Path) -> list[tuple[int, Path | None]]:
    """Each with the control group that sets it; None for the machine."""
    limits: list[tuple[int, Path | None]] = [(_kilobytes(meminfo, "MemTotal"), None)]
    group = groups / own.read_text().partition("0::/")[2].split("\n")[0]
    for folder in (group, *group.parents):
        if (limit := folder / "memory.max").is_file() and (most := limit.read_text().strip()) != "max":
            limits.append((int(most), folder))
        if folder == groups:
            break
    return limits


def _kilobytes(meminfo: Path, name: str) -> int:
    return int(meminfo.read_text().partition(f"{name}:")[2].split()[0]) * 1024


def visible(cards: Sequence[Sequence[Gpu]], chosen: str | None) -> list[Gpu]:
    """The GPUs that `chosen`, a CUDA_VISIBLE_DEVICES of card numbers or UUID prefixes, lets a process see.

    As in CUDA, entries after an unknown one are ignored, and a repeated one makes the list empty.
    """
    if chosen is None:
        return [gpu for card in cards for gpu in card]
    seen: list[Gpu] = []
    for word in (part.strip() for part in chosen.split(",")):
        found = _named(cards, word)
        if not found:
            break
        if any(gpu in seen for gpu in found):
            return []
        seen += found
    return seen


def _named(cards: Sequence[Sequence[Gpu]], word: str) -> list[Gpu]:
    if word.isdecimal():
        return list(cards[int(word)]) if int(word) < len(cards) else []
    begins = [gpu for card in cards for gpu in card if word.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(word)]
    return begins if len(begins) == 1 else []


def _cards() -> list[list[Gpu]]:
    """The cards by the driver's numbers, each as the devices that trainers can get from it."""
    try:
        with driver():
            return [_card(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError_LibraryNotFound:
        log.info("no driver library of NVIDIA (libnvidia-ml.so.1) is here: trainers will run on the CPU")
        return []
    except pynvml.NVMLError as error:
        log.warning("the GPUs' driver does not answer, and trainers will run on the CPU: %s", error)
        return []


def _card(number: int) -> list[Gpu]:
    try:
        card = pynvml.nvmlDeviceGetHandleByIndex(number)
        capability = pynvml.nvmlDeviceGetCudaComputeCapability(card)
        return [_gpu(part, capability) for part in _parts(card)]
    except pynvml.NVMLError as error:
        log.warning("GPU %s does not answer, and is left out: %s", number, error)
        return []


def _parts(card: Any) -> list[Any]:
    """The MIG instances of a card that is divided into such; else the card itself."""
    with suppress(pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        current, _pending = pynvml.nvmlDeviceGetMigMode(card)
        if current == pynvml.NVML_DEVICE_MIG_ENABLE:
            return list(_instances(card))
    return [card]


def _instances(card: Any) -> Iterator[Any]:
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        with suppress(pynvml.NVMLError_NotFound):  # not every place has an instance
            yield pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, place)


def _gpu(handle: Any, compute_capability: tuple[int, int]) -> Gpu:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
    except pynvml.NVMLError_NotSupported:
        memory = None
    return Gpu(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_bytes=memory,
        compute_capability=compute_capability,
    )
