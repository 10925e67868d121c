"""What a pod starts, as a real process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import until
from worker.launchers.cluster_node import ALIVE, STOP, TAKEN
from worker.launchers.kubernetes_node import CLAIM, EXIT, STOPPED

ROOT = Path(__file__).parents[3]
SAVES = """import signal, sys, time, pathlib
def save(number, frame):
    with open("saved", "a") as file: file.write("x")
    time.sleep(0.2)
    sys.exit(7)
signal.signal(signal.SIGTERM, save)
pathlib.Path("begun").touch()
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ALIVE).touch()
    return tmp_path


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    every: list[subprocess.Popen[str]] = []
    yield every
    for each in every:
        each.kill()
        each.communicate()


def start(
    folder: Path, started: "list[subprocess.Popen[str]]", program: str = SAVES, node: int = 0, silence: float = 60
) -> "subprocess.Popen[str]":
    (folder / "trainer.py").write_text(program)
    options = ["--processes", "1", "--nodes", "1", "--id", "x", "--endpoint", "first:29400"]
    options += ["--silence", str(silence), "--grace", "5", "--trainer", f'["{sys.executable}", "-P"]']
    given = {"JOB_COMPLETION_INDEX": str(node), "POD_IP": "127.0.0.1", "POD_UID": "a-pod", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "worker.launchers.kubernetes_node", *options, "--", str(folder / "trainer.py")]
    environment = {**os.environ, **given}
    each = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    started.append(each)
    return each


def test_exit_code_of_the_trainer_is_kept(folder: Path, started: list["subprocess.Popen[str]"]) -> None:
    assert start(folder, started, "raise SystemExit(3)").wait(30) == 3
    assert (folder / EXIT).read_text() == "3"
    assert (folder / CLAIM).read_text() == "a-pod"


def test_kubelets_sigterm_lets_the_trainer_save_once(folder: Path, started: list["subprocess.Popen[str]"]) -> None:
    pod = start(folder, started)
    until((folder / "begun").exists)
    pod.send_signal(signal.SIGTERM)
    until((folder / STOPPED).exists)
    (folder / STOP).touch()
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(30) == 7
    assert (folder / "saved").read_text() == "x"


def test_workers_sign_stops_a_pod_without_the_api_server(folder: Path, started: list["subprocess.Popen[str]"]) -> None:
    pod = start(folder, started)
    until((folder / "begun").exists)
    (folder / STOP).touch()
    assert pod.wait(30) == 7
    assert not (folder / STOPPED).exists()


def test_pod_without_a_sign_of_the_worker_saves_and_ends(folder: Path, started: list["subprocess.Popen[str]"]) -> None:
    assert start(folder, started, silence=2).wait(30) == 7


@pytest.mark.parametrize(
    ("file", "words"), [(CLAIM, "another start"), ("superseded", "is over"), (STOP, "is over"), (STOPPED, "is over")]
)
def test_second_start_trains_nothing(
    folder: Path, started: list["subprocess.Popen[str]"], file: str, words: str
) -> None:
    (folder / file).touch()
    pod = start(folder, started)
    said, _ = pod.communicate(timeout=30)
    assert (pod.returncode, words in said) == (TAKEN, True)
    assert not (folder / "begun").exists()


def test_pod_of_a_silent_worker_trains_nothing(folder: Path, started: list["subprocess.Popen[str]"]) -> None:
    os.utime(folder / ALIVE, (0, 0))
    assert start(folder, started).wait(30) == TAKEN
