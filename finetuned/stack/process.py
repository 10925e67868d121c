"""A child process: a command in, a small record out; started, watched and stopped, every wait bounded.

Each child has a session of its own, so Ctrl-C reaches us alone, and a death signal, so it does not outlive us even when
we are killed. Not covered: what a child itself moves to another session, and a child that ignores its stop signal after
we were killed. Start children from the main thread: the death signal comes when the *thread* that started them ends.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01


class StackError(Exception):
    """A part of the stack could not do its work.

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
    """All of it: nothing is inherited."""
    folder: Path = Path("/")
    user: int | None = None
    """User and group to become; None stays who we are."""
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals | None = None
    """Sent by the kernel when we die; None is the stop signal."""
    stdin: int = subprocess.DEVNULL
    descriptors: Sequence[int] = ()
    """Open files that it inherits."""


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
    """Starts the command; what it prints is appended to `log`. Nobody else can read what it writes."""
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
    """Raises ChildError when the child dies first, or is not ready after `seconds`."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not child.alive:
            raise ChildError(child, f"ended with {describe_exit(child.process.returncode)} before it was ready")
        if time.monotonic() > deadline:
            raise ChildError(child, f"was not ready after {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def wait_until_done(child: Child, seconds: float) -> None:
    """Raises ChildError when the child fails, or runs longer than `seconds`."""
    try:
        code = child.process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise ChildError(child, f"was not done after {seconds:.0f} s") from None
    if code != 0:
        raise ChildError(child, f"ended with {describe_exit(code)}")


def stop(child: Child, seconds: float) -> None:
    """Sends the stop signal, and after `seconds` SIGKILL to all of the child's session."""
    if child.alive:
        child.process.send_signal(child.stop_signal)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(seconds)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()


def describe_exit(code: int) -> str:
    """`code` as subprocess gives it: negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, of its last 16 KiB at most."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _die_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For the child, between fork and exec: the kernel sends it `death_signal` when we die."""
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None)  # loaded here: after the fork, as little as possible
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # we died before the tie held
            os._exit(1)

    return tie
