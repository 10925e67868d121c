import sys
from datetime import timedelta
from pathlib import Path

from worker.run_output import read_exit_report
from worker.supervise import process
from worker.supervise.process import RUN_MARK, WORKER_MARK, Workspace, trainer_environment


def test_trainer_gets_its_environment() -> None:
    given = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "t", "https_proxy": "p", "OMP_NUM_THREADS": "2"}
    assert given.items() <= trainer_environment(given).items()


def test_trainer_gets_nothing_else() -> None:
    given = {"FINETUNED_DATABASE_URL": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "PYTHONPATH": "/elsewhere"}
    assert trainer_environment(given).keys() == {"PYTHONUNBUFFERED"}


def start(tmp_path: Path, *command: str) -> process.GuardedProcess:
    environment = process.marks("here", tmp_path) | {"OMP_NUM_THREADS": "3"}
    workspace = Workspace(tmp_path, tmp_path / "log", tmp_path / "exit_report.json")
    return process.start(command, workspace, timedelta(seconds=30), environment)


def test_marks_reach_a_detached_grandchild(tmp_path: Path) -> None:
    launch = "import subprocess; subprocess.run(['env'], start_new_session=True)"
    assert start(tmp_path, sys.executable, "-c", launch).wait() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert {f"{WORKER_MARK}=here", f"{RUN_MARK}={tmp_path}", "OMP_NUM_THREADS=3"} <= set(lines)


def test_a_trainer_that_has_ended_leaves_an_exit_report(tmp_path: Path) -> None:
    assert start(tmp_path, "true").wait() == 0
    exit_report = read_exit_report(tmp_path / "exit_report.json")
    assert exit_report is not None
    assert [each.killed for each in exit_report.processes] == [False]
