"""The guard's promise: whatever dies, and however, nothing that it started is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.processes import is_gone, parent_of
from tests.support.waiting import until
from worker.run_output import read_exit_report
from worker.supervise.guard import KILL_NOW, prctl
from worker.supervise.process import GUARD

# A launcher like torchrun: its child has a session of its own, and the launcher waits for it.
LAUNCHER = """
import subprocess, sys, time, pathlib
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
{then}
"""

# In place of `then`: it takes SIGTERM and stays.
DEAF = "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\nwhile True: time.sleep(1)"


def guard(tmp_path: Path, then: str, grace: float = 30) -> tuple[subprocess.Popen[bytes], int, int]:
    """The guard, its launcher's pid and the pid of the launcher's child."""
    reported = tmp_path / "pid"
    launcher = [sys.executable, "-c", LAUNCHER.format(then=then), str(reported)]
    process = subprocess.Popen(guarded(tmp_path, grace, launcher))
    until(lambda: reported.exists() and reported.read_text() != "")
    grandchild = int(reported.read_text())
    return process, parent_of(grandchild), grandchild


def guarded(tmp_path: Path, grace: float, launcher: list[str]) -> list[str]:
    return [sys.executable, "-S", "-E", str(GUARD), str(grace), str(tmp_path / "exit_report.json"), *launcher]


@pytest.mark.parametrize(("then", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("__import__('os').abort()", 134)])
def test_guard_exits_like_its_launcher(tmp_path: Path, then: str, code: int) -> None:
    process, _, grandchild = guard(tmp_path, f"time.sleep(0.3); {then}", grace=0.3)
    assert process.wait(20) == code
    assert is_gone(grandchild)


def test_killed_launcher_leaves_nothing(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "child.wait()", grace=0.3)
    os.kill(launcher, signal.SIGKILL)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert is_gone(grandchild)


def test_terminated_guard_asks_its_launcher(tmp_path: Path) -> None:
    then = "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(42)); print(flush=True); time.sleep(1000)"
    process, launcher, grandchild = guard(tmp_path, then)
    until(lambda: catches_term(launcher))
    process.terminate()
    assert process.wait(20) == 42
    assert is_gone(grandchild)


def catches_term(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_stubborn_launcher_is_killed_after_the_grace(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, DEAF, grace=0.2)
    until(lambda: catches_term(launcher))
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert is_gone(grandchild)


def test_death_of_the_worker_leaves_nothing(tmp_path: Path) -> None:
    reported = tmp_path / "pid"
    launcher = [sys.executable, "-c", LAUNCHER.format(then="child.wait()"), str(reported)]
    command = guarded(tmp_path, 0.3, launcher)
    worker = subprocess.Popen([sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *command])
    until(lambda: reported.exists() and reported.read_text() != "")
    grandchild = int(reported.read_text())
    family = [grandchild, parent_of(grandchild), parent_of(parent_of(grandchild))]
    worker.kill()
    worker.wait()
    until(lambda: all(map(is_gone, family)))


def test_death_of_the_guard_itself_ends_the_launcher(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "child.wait()")
    process.kill()
    process.wait()
    until(lambda: is_gone(launcher))
    os.kill(grandchild, signal.SIGKILL)


def test_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    result = subprocess.run(guarded(tmp_path, 1, ["/no/such/program"]), capture_output=True, timeout=20)
    assert result.returncode == 127
    assert b"cannot run /no/such/program" in result.stderr


def test_kill_request_acts_at_once(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, DEAF)
    until(lambda: catches_term(launcher))
    process.send_signal(KILL_NOW)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert is_gone(grandchild)


def test_kill_request_ends_the_grace(tmp_path: Path) -> None:
    process, launcher, _ = guard(tmp_path, DEAF)
    until(lambda: catches_term(launcher))
    process.terminate()
    process.send_signal(KILL_NOW)
    assert process.wait(20) == 128 + signal.SIGKILL


def test_kill_request_ends_the_wait_for_ranks(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "child.wait()")
    os.kill(launcher, signal.SIGKILL)
    until(lambda: parent_of(grandchild) == process.pid)
    process.send_signal(KILL_NOW)
    assert process.wait(20) == 128 + signal.SIGKILL
    assert is_gone(grandchild)


def test_second_stop_request_changes_nothing(tmp_path: Path) -> None:
    then = "import signal; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), sys.exit(42))); time.sleep(1000)"
    process, launcher, _ = guard(tmp_path, then)
    until(lambda: catches_term(launcher))
    process.terminate()
    until(lambda: not term_is_pending(process.pid))
    process.terminate()
    assert process.wait(20) == 42


def term_is_pending(pid: int) -> bool:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_the_exit_report_of_a_launcher_that_ended_by_itself_says_what_it_left(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, "time.sleep(0.3); sys.exit(0)")
    process.wait(20)
    exit_report = read_exit_report(tmp_path / "exit_report.json")
    assert exit_report is not None
    assert {each.pid: each.killed for each in exit_report.processes} == {launcher: False, grandchild: True}
    assert {each.name for each in exit_report.processes if each.pid == grandchild} == {"sleep"}
    assert exit_report.stop_requested is None


def test_the_exit_report_of_a_stop_names_every_process_and_none_of_them_is_left(tmp_path: Path) -> None:
    process, launcher, grandchild = guard(tmp_path, DEAF, grace=0.3)
    until(lambda: catches_term(launcher))
    requested = time.time()
    process.terminate()
    process.wait(20)
    exit_report = read_exit_report(tmp_path / "exit_report.json")
    assert exit_report is not None
    assert {each.pid: each.killed for each in exit_report.processes} == {launcher: True, grandchild: True}
    assert all(not Path(f"/proc/{each.pid}").exists() for each in exit_report.processes)
    assert exit_report.stop_requested == pytest.approx(requested, abs=1)
    assert exit_report.seconds >= 0.3
    assert exit_report.ended == pytest.approx((exit_report.stop_requested or 0) + exit_report.seconds)


def test_a_exit_report_that_cannot_be_written_is_told_and_changes_no_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-E", str(GUARD), "1", str(tmp_path / "no" / "folder"), "sh", "-c", "exit 7"]
    result = subprocess.run(command, capture_output=True, timeout=20)
    assert result.returncode == 7
    assert b"cannot write" in result.stderr


def test_no_exit_report_is_read_where_there_is_none_or_it_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "exit_report.json"
    assert read_exit_report(path) is None
    path.write_text('{"stop_requested": null, "end')
    assert read_exit_report(path) is None


def test_refused_prctl_is_an_error() -> None:
    with pytest.raises(OSError, match="prctl"):
        prctl(-1, 0)
