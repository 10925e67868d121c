"""Stands between a worker and a trainer's launcher, so that no process of a job outlives the job.

    guard.py GRACE_SECONDS COMMAND...

It adopts whatever the launcher leaves behind (PR_SET_CHILD_SUBREAPER), is told when its worker dies
(PR_SET_PDEATHSIG), and ends only when no descendant is left: on SIGTERM it passes the signal on, waits up to
GRACE_SECONDS, then kills. It exits as the launcher did, 128 + n for a signal n. It runs by path and needs the
standard library alone, so that it starts within milliseconds and whatever happens to the worker's code.

Not covered: a SIGKILL of this process and of the launcher at the same time.
"""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WATCHED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
SECONDS_BETWEEN_KILLS = 0.1

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    grace, command = float(sys.argv[1]), sys.argv[2:]
    worker = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker:
        return 128 + signal.SIGTERM  # it died before we could ask to be told
    launcher = _launch(command)
    ended: dict[int, int] = {}
    _wait(launcher, grace, ended)
    _kill_descendants(ended)
    code = os.waitstatus_to_exitcode(ended[launcher])
    return code if code >= 0 else 128 - code


def _launch(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"cannot run {command[0]}: {error}\n".encode())
        finally:
            os._exit(127)
    return pid


def _wait(launcher: int, grace: float, ended: dict[int, int]) -> None:
    """Returns when the launcher has ended, or when it has been asked to and `grace` seconds have passed since."""
    deadline: float | None = None
    while launcher not in ended:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return
        received = _next_signal(left)
        _reap(ended)
        if received in (signal.SIGTERM, signal.SIGINT) and deadline is None and launcher not in ended:
            os.kill(launcher, signal.SIGTERM)
            deadline = time.monotonic() + grace


def _next_signal(timeout: float | None) -> int | None:
    if timeout is None:
        return signal.sigwaitinfo(WATCHED).si_signo
    info = signal.sigtimedwait(WATCHED, timeout)
    return info.si_signo if info else None


def _kill_descendants(ended: dict[int, int]) -> None:
    """Kills and reaps until none is left: whatever loses its parent becomes a child of this process."""
    while descendants := _descendants(os.getpid()):
        for pid in descendants:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _next_signal(SECONDS_BETWEEN_KILLS)
        _reap(ended)


def _reap(ended: dict[int, int]) -> None:
    """Takes the wait status of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended[pid] = status


def _descendants(ancestor: int) -> set[int]:
    """Read from every process's stat file: not each kernel lists a process's children."""
    parents = {pid: parent for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (parent := _parent(pid))}
    found: set[int] = set()
    level = {ancestor}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # After the command's name, which is in parentheses and may hold any character: state, parent, ...
            return int(file.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has gone meanwhile


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


if __name__ == "__main__":
    sys.exit(main())
