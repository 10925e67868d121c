"""Stands between a worker and a trainer's launcher, so that no process of a job outlives the job.

    guard.py GRACE_SECONDS EXIT_REPORT COMMAND...

It adopts whatever the launcher leaves behind (PR_SET_CHILD_SUBREAPER), is told when its worker dies
(PR_SET_PDEATHSIG), and ends only when no descendant is left: on SIGTERM it passes the signal on, waits up to
GRACE_SECONDS, then kills; on SIGUSR1 it kills at once. It exits as the launcher did, 128 + n for a signal n, and leaves
in the file EXIT_REPORT which processes there were. FINETUNED_CORES keeps all of it on those cores. It runs by path and
needs the standard library alone, so that it starts within milliseconds and whatever happens to the worker's code.

Not covered here, but by the worker's look at all processes (strays.py): a SIGKILL of this process, which the launcher
is told of, and of the launcher at the same time.
"""

import ctypes
import json
import math
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KILL_NOW = signal.SIGUSR1
"""A signal of its own: a second SIGTERM while the first one waits to be taken would be one."""
STOPS = {signal.SIGTERM, signal.SIGINT}
WATCHED = {*STOPS, KILL_NOW, signal.SIGCHLD}
SECONDS_BETWEEN_KILLS = 0.1

_libc = ctypes.CDLL(None, use_errno=True)


class Family:
    """The processes that have been seen, and what became of them."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.ended: dict[int, int] = {}
        """Wait status by pid."""
        self.killed: set[int] = set()
        self.asked: float | None = None
        """When they were told to stop, on the clock of the world."""

    def look(self) -> set[int]:
        """Those that are there now."""
        there = _descendants(os.getpid())
        self.names.update((pid, _name(pid)) for pid in there)
        return there

    def reap(self) -> None:
        """Takes the wait status of every child that has ended."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self.names.setdefault(ended.si_pid, _name(ended.si_pid))
            self.ended[ended.si_pid] = os.waitpid(ended.si_pid, 0)[1]

    def kill(self, pids: set[int]) -> None:
        for pid in pids - self.ended.keys():
            try:
                os.kill(pid, signal.SIGKILL)
                self.killed.add(pid)
            except ProcessLookupError:
                continue

    def ask(self) -> None:
        self.look()
        self.asked = self.asked or time.time()


def main() -> int:
    grace, exit_report, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    worker = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker:
        return 128 + signal.SIGTERM  # it died before we could ask to be told
    if cores := os.environ.get("FINETUNED_CORES"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    family = Family()
    launcher = _launch(command)
    deadline = _wait(launcher, grace, family)
    began = time.time()
    if launcher in family.ended and os.WIFSIGNALED(family.ended[launcher]):
        # Its ranks have been told, and save.
        deadline = min(deadline, time.monotonic() + grace)
    elif launcher in family.ended:
        deadline = -math.inf
    _end_descendants(deadline, family)
    _write(exit_report, family, family.asked or began)
    code = os.waitstatus_to_exitcode(family.ended[launcher])
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


def _wait(launcher: int, grace: float, family: Family) -> float:
    """Returns when the launcher has ended, or when it has been asked to and its time is over: the end of that time."""
    deadline = math.inf
    family.look()
    while launcher not in family.ended and (left := deadline - time.monotonic()) > 0:
        received = _next_signal(left)
        family.reap()
        if received in STOPS and family.asked is None and launcher not in family.ended:
            family.ask()
            os.kill(launcher, signal.SIGTERM)
            deadline = time.monotonic() + grace
        elif received == KILL_NOW:
            family.ask()
            deadline = -math.inf
    return deadline


def _next_signal(timeout: float) -> int | None:
    if timeout == math.inf:
        return signal.sigwaitinfo(WATCHED).si_signo
    info = signal.sigtimedwait(WATCHED, timeout)
    return info.si_signo if info else None


def _end_descendants(deadline: float, family: Family) -> None:
    """Reaps until none is left, and kills from `deadline` on: whatever loses its parent becomes a child of this
    process."""
    while descendants := family.look():
        family.reap()
        if time.monotonic() >= deadline:
            family.kill(descendants)
        if _next_signal(SECONDS_BETWEEN_KILLS) == KILL_NOW:
            deadline = -math.inf
        family.reap()


def _write(exit_report: str, family: Family, asked: float) -> None:
    now = time.time()
    processes = [{"pid": pid, "name": name, "killed": pid in family.killed} for pid, name in family.names.items()]
    told = {"stop_requested": family.asked, "ended": now, "seconds": now - asked, "processes": processes}
    beside = f"{exit_report}.{os.getpid()}"
    try:
        with open(beside, "w") as file:
            json.dump(told, file)
        os.replace(beside, exit_report)
    except OSError as error:
        os.write(2, f"cannot write {exit_report}: {error}\n".encode())


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
        return None


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "?"


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


if __name__ == "__main__":
    sys.exit(main())
