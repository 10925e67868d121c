import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from runtime.processes import environment_of, environments, is_alive, name_of, parent_of, send
from tests.support.processes import is_gone
from tests.support.waiting import until

NOBODY = 2**22 + 1
"""Greater than any pid of Linux."""

CHILD = """
import os, signal, sys, time
from runtime.processes import end_with_parent
parent = os.getppid() if sys.argv[1] == "here" else 1
print(end_with_parent(parent, signal.SIGTERM), os.getpid(), flush=True)
time.sleep(1000)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "1000"], env={"MARK": "a=b c"}) as process:
        until(lambda: environment_of(process.pid) == {"MARK": "a=b c"})
        yield process
        process.kill()


def test_process_is_described(sleeper: "subprocess.Popen[bytes]") -> None:
    assert name_of(sleeper.pid) == "sleep"
    assert parent_of(sleeper.pid) == os.getpid()
    assert is_alive(sleeper.pid)
    assert dict(environments())[sleeper.pid] == {"MARK": "a=b c"}


def test_zombie_is_not_alive(sleeper: "subprocess.Popen[bytes]") -> None:
    sleeper.kill()
    until(lambda: is_gone(sleeper.pid))
    assert parent_of(sleeper.pid) is None
    assert not is_alive(sleeper.pid)


def test_missing_process_has_nothing() -> None:
    assert (environment_of(NOBODY), name_of(NOBODY), parent_of(NOBODY)) == ({}, None, None)


def test_signal_reaches_those_that_are_there(sleeper: "subprocess.Popen[bytes]") -> None:
    send(signal.SIGTERM, [NOBODY, sleeper.pid])
    assert sleeper.wait(20) == -signal.SIGTERM


def test_process_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD, "here"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        bound, pid = parent.stdout.readline().split()
        assert bound == b"True"
        parent.kill()
        until(lambda: is_gone(int(pid)))


def test_process_whose_parent_has_ended_is_told() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, "gone"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline().split()[0] == b"False"
        child.kill()
