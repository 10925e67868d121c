import os
import signal
import sys
from pathlib import Path

import pytest

from finetuned.stack.process import ChildError, Command, log_tail, start, stop, wait_until_done, wait_until_ready

PYTHON = {"PATH": os.defpath}


def python(code: str) -> Command:
    return Command("the child", [sys.executable, "-c", code], PYTHON)


def test_a_child_that_dies_before_it_is_ready_is_told_with_its_log(tmp_path: Path) -> None:
    child = start(python("import sys; print('no disk left'); sys.exit(3)"), tmp_path / "log")
    with pytest.raises(ChildError, match=r"the child ended with exit code 3 before it was ready(.|\n)*no disk left"):
        wait_until_ready(child, lambda: False, 10)


def test_a_child_that_is_not_ready_in_time_is_told(tmp_path: Path) -> None:
    child = start(python("import time; time.sleep(60)"), tmp_path / "log")
    with pytest.raises(ChildError, match=r"was not ready after 0 s"):
        wait_until_ready(child, lambda: False, 0.05)
    stop(child, 5)


def test_a_child_killed_by_a_signal_is_told_by_the_signals_name(tmp_path: Path) -> None:
    child = start(python("import os; os.kill(os.getpid(), 9)"), tmp_path / "log")
    with pytest.raises(ChildError, match="SIGKILL"):
        wait_until_done(child, 10)


def test_a_child_deaf_to_its_stop_signal_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = start(python(deaf), tmp_path / "log")
    wait_until_ready(child, lambda: log_tail(child.log) == "deaf", 10)
    stop(child, 0.1)
    assert child.process.returncode == -signal.SIGKILL


def test_a_child_sees_the_environment_it_is_given_and_no_more(tmp_path: Path) -> None:
    child = start(python("import os; print('HOME' in os.environ, os.environ['PATH'])"), tmp_path / "log")
    wait_until_done(child, 10)
    assert log_tail(child.log) == f"False {os.defpath}"


def test_the_tail_of_a_long_log_is_its_last_lines(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {i}\n" for i in range(10_000)))
    assert log_tail(tmp_path / "log", lines=2) == "line 9998\nline 9999"
