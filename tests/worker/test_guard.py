"""The guard's promise: whatever dies, and however, nothing that it started is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.guard import prctl
from worker.process import GUARD

# A launcher like torchrun: its child has a session of its own, and the launcher waits for it.
LAUNCHER = """
import subprocess, sys, time, pathlib
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
{then}
"""


def guard(tmp_path: Path, then: str, grace: float = 30) -> tuple[subprocess.Popen[bytes], int, int]:
    """The guard, its launcher's pid and the pid of the launcher's child."""
    told = tmp_path / "pid"
    launcher = [sys.executable, "-c", LAUNCHER.format(then=then), str(told)]
    process = subprocess.Popen([sys.executable, "-S", "-E", str(GUARD), str(grace), *launcher])
    until(lambda: told.exists() and told.read_text() != "")
    grandchild = int(told.read_text())
    return process, parent(grandchild), grandchild


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(("then", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("__import__('os').abort()", 134)])
def test_it_exits_as_the_launcher_did_and_leaves_nothing(tmp_path: Path, then: str, code: int) -> None:
    process, _, grandchild = guard(tmp_path, f"time.sleep(0.3); {then}")
    assert process.wait(20) == code
    assert gone(grandchild)


def test_a_killed_launcher_leaves_nothing(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "child.wait()")
    os.kill(launcher, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert gone(grandchild)


def test_terminating_it_asks_the_launcher_and_waits_for_its_answer(tmp_path: Path) -> None:
    then = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(42)); print(flush=True); time.sleep(1000)"
    process, launcher, grandchild = guard(tmp_path, then)
    until(lambda: catches_term(launcher))
    process.terminate()
    assert process.wait(20) == 42
    assert gone(grandchild)


def catches_term(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_launcher_that_does_not_heed_is_killed_after_the_grace(tmp_path: Path) -> None:
    then = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\nwhile True: time.sleep(1)"
    process, launcher, grandchild = guard(tmp_path, then, grace=0.2)
    until(lambda: catches_term(launcher))
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert gone(grandchild)


def test_the_death_of_the_worker_leaves_nothing(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    launcher = [sys.executable, "-c", LAUNCHER.format(then="child.wait()"), str(told)]
    command = [sys.executable, "-S", "-E", str(GUARD), "30", *launcher]
    worker = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command])
    until(lambda: told.exists() and told.read_text() != "")
    grandchild = int(told.read_text())
    family = [grandchild, parent(grandchild), parent(parent(grandchild))]
    worker.kill()
    worker.wait()
    until(lambda: all(map(gone, family)))


def test_the_death_of_the_guard_itself_ends_the_launcher(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "child.wait()")
    process.kill()
    process.wait()
    until(lambda: gone(launcher))
    os.kill(grandchild, signal.SIGKILL)


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-S", "-E", str(GUARD), "1", "/no/such/program"], capture_output=True, timeout=20
    )
    assert result.returncode == 127
    assert b"cannot run /no/such/program" in result.stderr


def test_a_refused_prctl_is_an_error() -> None:
    with pytest.raises(OSError, match="prctl"):
        prctl(-1, 0)
