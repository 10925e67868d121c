"""Stands between a worker and a trainer's launcher, so that no process of a job outlives the job.

    guard.py GRACE_SECONDS EXIT_REPORT COMMAND...

It adopts whatever the launcher leaves behind (PR_SET_CHILD_SUBREAPER), gets a signal when its worker dies
(PR_SET_PDEATHSIG), and exits only when no descendant is left. On SIGTERM it passes the signal on, waits up to
GRACE_SECONDS, then kills; on SIGUSR1 it kills at once. It exits as the launcher did, 128 + n for a signal n, and
writes to the file EXIT_REPORT which processes there were. FINETUNED_CORES keeps all of them on those cores. It runs by
path and imports the standard library only, so that it starts within milliseconds and independently of the worker's
code.

One case is left to the worker's search for orphans (orphans.py): a SIGKILL of this process and of the launcher at the
same time.
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
"""A signal of its own: a second SIGTERM that arrives before the first is handled would merge with it."""
STOPS = {signal.SIGTERM, signal.SIGINT}
WATCHED = {*STOPS, KILL_NOW, signal.SIGCHLD}
SECONDS_BETWEEN_KILLS = 0.1

_libc = ctypes.CDLL(None, use_errno=True)


class Descendants:
    """The processes below this one that have been seen, and what became of them."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.ended: dict[int, int] = {}
        """The wait status of each process that has ended, by pid."""
        self.killed: set[int] = set()
        self.stop_requested: float | None = None
        """When the first request to stop came, in seconds since the epoch."""

    def find(self) -> set[int]:
        """The pids of those that are there now."""
        found = _descendants(os.getpid())
        self.names.update((pid, _name(pid)) for pid in found)
        return found

    def reap(self) -> None:
        """Collects the wait status of every child that has ended."""
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

    def note_stop(self) -> None:
        """Remembers who was there when the first request to stop came."""
        self.find()
        self.stop_requested = self.stop_requested or time.time()


def main() -> int:
    grace, exit_report, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    worker = os.getppid()
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != worker:
        return 128 + signal.SIGTERM  # the worker died before the call
    if cores := os.environ.get("FINETUNED_CORES"):
        os.sched_setaffinity(0, map(int, cores.split(",")))
    seen = Descendants()
    launcher = _launch(command)
    deadline = _wait(launcher, grace, seen)
    began = time.time()
    if launcher in seen.ended and os.WIFSIGNALED(seen.ended[launcher]):
        # Its ranks have got a signal too, and save.
        deadline = min(deadline, time.monotonic() + grace)
    elif launcher in seen.ended:
        deadline = -math.inf
    _end_descendants(deadline, seen)
    _write(exit_report, seen, seen.stop_requested or began)
    code = os.waitstatus_to_exitcode(seen.ended[launcher])
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


def _wait(launcher: int, grace: float, seen: Descendants) -> float:
    """Waits until the launcher has ended, or its grace after a stop is over. Returns the end of the grace."""
    deadline = math.inf
    seen.find()
    while launcher not in seen.ended and (left := deadline - time.monotonic()) > 0:
        received = _next_signal(left)
        seen.reap()
        if received in STOPS and seen.stop_requested is None and launcher not in seen.ended:
            seen.note_stop()
            os.kill(launcher, signal.SIGTERM)
            deadline = time.monotonic() + grace
        elif received == KILL_NOW:
            seen.note_stop()
            deadline = -math.inf
    return deadline


def _next_signal(timeout: float) -> int | None:
    if timeout == math.inf:
        return signal.sigwaitinfo(WATCHED).si_signo
    info = signal.sigtimedwait(WATCHED, timeout)
    return info.si_signo if info else None


def _end_descendants(deadline: float, seen: Descendants) -> None:
    """Reaps until no descendant is left, and kills from `deadline` on. An orphan becomes a child of this process."""
    while descendants := seen.find():
        seen.reap()
        if time.monotonic() >= deadline:
            seen.kill(descendants)
        if _next_signal(SECONDS_BETWEEN_KILLS) == KILL_NOW:
            deadline = -math.inf
        seen.reap()


def _write(exit_report: str, seen: Descendants, since: float) -> None:
    now = time.time()
    processes = [{"pid": pid, "name": name, "killed": pid in seen.killed} for pid, name in seen.names.items()]
    report = {"stop_requested": seen.stop_requested, "ended": now, "seconds": now - since, "processes": processes}
    beside = f"{exit_report}.{os.getpid()}"
    try:
        with open(beside, "w") as file:
            json.dump(report, file)
        os.replace(beside, exit_report)
    except OSError as error:
        os.write(2, f"cannot write {exit_report}: {error}\n".encode())


def _descendants(ancestor: int) -> set[int]:
    """The pids of all descendants, from every process's stat file: not every kernel lists a process's children."""
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
            # After the command's name, which is in parentheses and may contain any character: state, parent, ...
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
