"""The process of a node, without a cluster around it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from runtime.processes import is_alive
from tests.support.waiting import until
from worker.launchers.cluster_node import ALIVE, STOP
from worker.launchers.slurm_node import STOPPED

SAVES = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(5)); print('up', flush=True); time.sleep(60)"


def start(folder: Path, code: str, silence: float = 60, grace: float = 60, node: int = 0) -> "subprocess.Popen[bytes]":
    trainer = json.dumps([sys.executable, "-c", code])
    options = ["--processes", "1", "--nodes", "1", "--id", "job-1", "--silence", str(silence), "--grace", str(grace)]
    command = [sys.executable, "-P", "-m", "worker.launchers.slurm_node", *options, "--trainer", trainer, "--", "RUN"]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "SLURM_NODEID": str(node)})


def test_node_without_a_sign_of_the_worker_saves_and_ends(tmp_path: Path) -> None:
    (tmp_path / ALIVE).touch()
    node = start(tmp_path, SAVES, silence=1)
    assert node.wait(30) == 5


def test_trainer_that_does_not_end_is_left_to_slurm(tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(20)"
    assert start(tmp_path, deaf, silence=1, grace=1).wait(30) == 128 + signal.SIGKILL


def test_sign_of_the_worker_keeps_a_node_training(tmp_path: Path) -> None:
    node = start(tmp_path, "import time; time.sleep(6)", silence=3)
    while node.poll() is None:
        (tmp_path / ALIVE).touch()
        time.sleep(0.1)
    assert node.returncode == 0


def test_stop_of_slurm_is_noted_and_not_passed_on(tmp_path: Path) -> None:
    node = start(tmp_path, "import time; print('up', flush=True); time.sleep(4)")
    until(lambda: (tmp_path / "trainer.log").exists() and "up" in (tmp_path / "trainer.log").read_text())
    node.send_signal(signal.SIGTERM)
    assert node.wait(30) == 0
    assert (tmp_path / STOPPED).exists()


def test_sign_to_stop_holds_without_slurm(tmp_path: Path) -> None:
    (tmp_path / STOP).touch()
    assert start(tmp_path, SAVES).wait(60) == 5


def test_process_that_left_its_parent_ends_with_the_node(tmp_path: Path) -> None:
    leaves = "import subprocess; print(subprocess.Popen(['sleep', '1000'], start_new_session=True).pid)"
    assert start(tmp_path, leaves).wait(30) == 0
    assert not is_alive(int((tmp_path / "trainer.log").read_text()))


def test_each_node_has_a_log_of_its_own(tmp_path: Path) -> None:
    assert start(tmp_path, "print('second')", node=1).wait(30) == 0
    assert (tmp_path / "trainer-1.log").read_text() == "second\n"


def test_end_by_a_signal_is_its_number(tmp_path: Path) -> None:
    assert start(tmp_path, "import os; os.kill(os.getpid(), 9)").wait(30) == 128 + 9
