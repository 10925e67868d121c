"""Other processes of this machine, and how a process ends with the one that started it. Linux alone."""

import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent(parent: int, number: signal.Signals) -> bool:
    """Has the kernel send `number` to this process when `parent` ends. Returns False if it has ended already."""
    if _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_PDEATHSIG")
    return os.getppid() == parent


def environments() -> Iterator[tuple[int, dict[str, str]]]:
    """The pid and the environment of every process whose environment this one may read."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            yield process.pid, process.environ()


def environment_of(pid: int) -> dict[str, str]:
    """Empty if there is no such process, or this one may not read it."""
    with suppress(psutil.Error):
        return dict(psutil.Process(pid).environ())
    return {}


def name_of(pid: int) -> str | None:
    """None if there is no such process, as far as this one can see."""
    with suppress(psutil.Error):
        return str(psutil.Process(pid).name())
    return None


def parent_of(pid: int) -> int | None:
    """The parent's pid; None for a process that has ended, even if its parent has not reaped it yet."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return int(process.ppid())
    return None


def is_alive(pid: int) -> bool:
    return parent_of(pid) is not None


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Sends a signal to each process that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
