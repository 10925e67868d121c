"""Child processes: started, watched and stopped, with a limit on every wait.

Each child has its own session, so that Ctrl-C reaches only us, and a death signal, so that it does not outlive us even
if we are killed. `end_descendants` also ends what children have moved to other sessions. Not covered: after we were
killed, processes in other sessions and children that ignore their death signal. Start children from the main thread:
the kernel sends the death signal when the *thread* that started them ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from finetuned.errors import FinetunedError

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.01


class StackError(FinetunedError):
    """A part of the stack failed.

    ChildError      a child process died, or was not ready in time
    """


class ChildError(StackError):
    def __init__(self, child: "Child", what: str) -> None:
        tail = log_tail(child.log)
        super().__init__(f"{child.name} {what}; the end of {child.log}:\n{tail or '(empty)'}")


@dataclass(frozen=True)
class Command:
    name: str
    argv: Sequence[str | Path]
    environment: Mapping[str, str]
    """The complete environment; nothing is inherited."""
    folder: Path = Path("/")
    user: int | None = None
    """User and group that it runs as; None for ours."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals | None = None
    """Signal that the kernel sends when we die; None for the stop signal."""
    stdin: int = subprocess.DEVNULL
    descriptors: Sequence[int] = ()
    """Open file descriptors that it inherits."""


@dataclass(frozen=True)
class Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


def start(command: Command, log: Path) -> Child:
    """Starts a command and appends its output to `log`. Other users can read neither the log nor its files."""
    user = command.user
    with open(log, "ab", opener=_private) as output:
        process = subprocess.Popen(
            [str(part) for part in command.argv],
            stdin=command.stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(command.environment),
            cwd=command.folder,
            start_new_session=True,
            pass_fds=command.descriptors,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            umask=0o077,
            # Runs after the change of user, which would clear the death signal.
            preexec_fn=_die_with_parent(command.death_signal or command.stop_signal),
        )
    return Child(command.name, process, log, command.stop_signal)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def wait_until_ready(child: Child, ready: Callable[[], bool], seconds: float) -> None:
    """Waits until `ready` is true. Raises ChildError when the child dies first, or after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not child.alive:
            raise ChildError(child, f"ended with {describe_exit(child.process.returncode)} before it was ready")
        if time.monotonic() > deadline:
            raise ChildError(child, f"was not ready after {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def wait_until_done(child: Child, seconds: float) -> None:
    """Waits for a child's success. Raises ChildError when it fails, or after `seconds`."""
    try:
        code = child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise ChildError(child, f"was not done after {seconds:.0f} s") from None
    if code != 0:
        raise ChildError(child, f"ended with {describe_exit(code)}")


def stop(child: Child, seconds: float) -> None:
    """Sends the stop signal, and SIGKILL to the child's whole session after `seconds` at the latest."""
    if child.alive:
        child.process.send_signal(child.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(seconds)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()


def adopt_orphans() -> None:
    """From now on a descendant whose parent ends becomes our child instead of init's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> dict[int, str]:
    """The names of all living processes below ours, in whatever session, by process id."""
    found: dict[int, str] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = process.name()
    return found


def kill_descendants(name: str) -> None:
    """Kills the descendants of that name."""
    _kill(pid for pid, each in descendants().items() if each == name)


def end_descendants(grace: float, seconds: float = 5.0) -> dict[int, str]:
    """Waits `grace` seconds for all descendants to end, and then kills them. Gives those alive after `seconds` more."""
    began = time.monotonic()
    while alive := descendants():
        waited = time.monotonic() - began
        if waited > grace + seconds:
            return alive
        if waited > grace:
            _kill(alive)
        _reap()
        time.sleep(0.02)
    _reap()
    return {}


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap() -> None:
    """Collects the ended children, adopted ones included."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def describe_exit(code: int) -> str:
    """Names an exit code of subprocess, which is negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, at most 16 KiB."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """A function to run in the child before exec: it has the kernel send `death_signal` when we die."""
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None)  # loaded before the fork, after which little is safe
    parent = os.getpid()

    def set_death_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # we died before it was set
            os._exit(1)

    return set_death_signal
