"""Every process below ours, whatever session or parent it has moved to: Linux gives us the orphans among them."""

import ctypes
import os
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes our child, not init's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> dict[int, str]:
    """The name of every living descendant, by its process id."""
    below = defaultdict[int, list[int]](list)
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                # pid (name) state parent ..., where the name may hold blanks and brackets: proc(5).
                head, _, tail = (entry / "stat").read_text(errors="replace").rpartition(")")
                state, parent = tail.split()[:2]
                if state != "Z":
                    below[int(parent)].append(int(entry.name))
                    names[int(entry.name)] = head.partition("(")[2]
    found: dict[int, str] = {}
    left = list(below[os.getpid()])
    while left:
        pid = left.pop()
        found[pid] = names[pid]
        left.extend(below[pid])
    return found


def kill_descendants(name: str) -> None:
    """Those of that name, as the kernel has it."""
    for pid, each in descendants().items():
        if each == name:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def end_descendants(grace: float, seconds: float = 5.0) -> dict[int, str]:
    """Waits `grace` seconds for all descendants to end, then kills them; gives those alive after `seconds` more."""
    now = time.monotonic()
    while alive := descendants():
        waited = time.monotonic() - now
        if waited > grace + seconds:
            return alive
        if waited > grace:
            for pid in alive:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _bury()
        time.sleep(0.02)
    _bury()
    return {}


def _bury() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
