"""Whatever is killed, what it leaves is found by its marks and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.processes import is_alive
from tests.support.processes import is_gone, parent_of
from tests.support.waiting import until
from worker.supervise.orphans import Orphans, find, marks_of
from worker.supervise.process import GUARD, marks

WORKER = "the-worker-of-this-test"

# As torchrun with one rank, whose session is its own; the rank tells its pid once it is ready.
LAUNCHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
"""
RANK = """
import os, pathlib, signal, sys, time
{first}
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
while True: time.sleep(1000)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"

# As a process of the worker's pool, without marks itself: it starts the guard, and waits for it.
POOL = "import subprocess, sys; subprocess.run(sys.argv[1:])"


class Family:
    """A process of the pool, and below it a guard, a launcher and a rank, all of one run."""

    def __init__(self, run: Path, rank: str, grace: float) -> None:
        run.mkdir(parents=True)
        reported = run / "pid"
        launcher = [sys.executable, "-c", LAUNCHER, rank, str(reported)]
        guard = [sys.executable, "-S", "-E", str(GUARD), str(grace), str(run / "exit_report.json"), *launcher]
        environment = [f"{name}={value}" for name, value in marks(WORKER, run).items()]
        self.pool = subprocess.Popen([sys.executable, "-c", POOL, "env", *environment, *guard])
        until(lambda: reported.exists() and reported.read_text() != "")
        self.rank = int(reported.read_text())
        self.launcher = parent_of(self.rank)
        self.guard = parent_of(self.launcher)

    @property
    def pids(self) -> set[int]:
        return {self.guard, self.launcher, self.rank}

    def end(self) -> None:
        for pid in self.pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
        self.pool.wait()


Start = Callable[..., Family]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def run(runs: Path) -> Path:
    return runs / "job" / "attempt-1"


@pytest.fixture
def start(run: Path) -> Iterator[Start]:
    families: list[Family] = []

    def start(first: str = "", grace: float = 30) -> Family:
        families.append(Family(run, RANK.format(first=first), grace))
        return families[-1]

    yield start
    for family in families:
        family.end()


def clearing(runs: Path, grace: float = 30) -> Orphans:
    return Orphans(WORKER, runs, timedelta(seconds=grace))


def test_run_processes_are_found_by_marks(start: Start, runs: Path, run: Path) -> None:
    family = start()
    assert find(WORKER, runs) == {run: family.pids}
    assert marks_of(family.rank) == (WORKER, run)


def test_processes_of_other_runs_are_not_found(start: Start, runs: Path, tmp_path: Path) -> None:
    start()
    assert find("another", runs) == {}
    assert find(WORKER, tmp_path / "elsewhere") == {}


def test_unmarked_and_ended_processes_have_none() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert marks_of(os.getpid()) is None
    assert marks_of(ended.pid) is None


def test_zombie_does_not_count(runs: Path, run: Path) -> None:
    zombie = subprocess.Popen(["sleep", "1000"], env={**os.environ, **marks(WORKER, run)})
    until(lambda: find(WORKER, runs) == {run: {zombie.pid}})
    zombie.send_signal(signal.SIGKILL)
    until(lambda: is_gone(zombie.pid))
    assert Path(f"/proc/{zombie.pid}").exists()
    assert not is_alive(zombie.pid)
    assert find(WORKER, runs) == {}
    zombie.wait()


def test_run_that_is_followed_is_left_alone(start: Start, runs: Path, run: Path) -> None:
    family = start()
    assert clearing(runs, grace=0).end(0, lambda: {run}) == set()
    assert not any(map(is_gone, family.pids))


def test_later_processes_are_left_alone(start: Start, runs: Path) -> None:
    begun: list[Family] = []

    def followed() -> set[Path]:
        begun.append(start())
        return set()

    assert clearing(runs).end(0, followed) == set()
    assert not any(map(is_gone, begun[0].pids))


def test_processes_of_a_killed_guard_are_ended(start: Start, runs: Path, run: Path) -> None:
    family = start()
    os.kill(family.guard, signal.SIGKILL)
    until(lambda: is_gone(family.launcher))
    assert not is_gone(family.rank)
    clear = clearing(runs).end
    assert clear(0, set) == {run}
    until(lambda: is_gone(family.rank))
    assert clear(1, set) == set()


def test_processes_of_killed_guard_and_launcher_end(start: Start, runs: Path, run: Path) -> None:
    family = start()
    # The rank's guard must not see the launcher's end.
    os.kill(family.guard, signal.SIGSTOP)
    os.kill(family.launcher, signal.SIGKILL)
    os.kill(family.guard, signal.SIGKILL)
    until(lambda: is_gone(family.guard) and is_gone(family.launcher))
    assert not is_gone(family.rank)
    assert clearing(runs).end(0, set) == {run}
    until(lambda: is_gone(family.rank))


def test_stubborn_process_is_killed_after_the_grace(start: Start, runs: Path, run: Path) -> None:
    family = start(DEAF)
    os.kill(family.guard, signal.SIGKILL)
    until(lambda: is_gone(family.launcher))
    clear = clearing(runs).end
    assert clear(100, set) == {run}
    assert clear(129, set) == {run}
    assert not is_gone(family.rank)
    assert clear(130, set) == {run}
    until(lambda: is_gone(family.rank))
    assert clear(131, set) == set()


def test_each_gets_one_sigterm(start: Start, runs: Path, tmp_path: Path) -> None:
    signalled = tmp_path / "signalled"
    family = start(f"signal.signal(signal.SIGTERM, lambda *_: open({str(signalled)!r}, 'a').write('once '))")
    os.kill(family.guard, signal.SIGKILL)
    until(lambda: is_gone(family.launcher))
    clear = clearing(runs).end
    for now in range(3):
        clear(now, set)
        until(lambda: signalled.exists() and signalled.read_text() != "")
    clear(40, set)
    until(lambda: is_gone(family.rank))
    assert signalled.read_text() == "once "


def test_a_guard_that_lost_its_pool_ends_its_own_and_leaves_a_exit_report(start: Start, runs: Path, run: Path) -> None:
    family = start(grace=0.3)
    family.pool.kill()
    family.pool.wait()
    clear = clearing(runs).end
    until(lambda: clear(0, set) == set())
    # A process that is ending gives up its environment a moment before it has ended.
    until(lambda: all(map(is_gone, family.pids)))
    assert (run / "exit_report.json").exists()


def test_look_is_cheap(start: Start, runs: Path) -> None:
    start()
    processes = sum(name.isdigit() for name in os.listdir("/proc"))
    begun = time.process_time()
    for _ in range(10):
        find(WORKER, runs)
    # 20 ms for 500 processes are 40 microseconds for one; here three times as much, for a slow machine.
    assert (time.process_time() - begun) / 10 < 120e-6 * processes
