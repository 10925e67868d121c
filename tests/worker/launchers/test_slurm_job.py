"""The script of a Slurm job, without a cluster around it."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from worker.launchers.cluster_node import ALIVE, STOP
from worker.launchers.slurm import CLAIM, EXIT, SCRIPT


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").touch()


def start(folder: Path, silence: int = 60) -> int:
    """Its exit code. srun is a program that does what it is given."""
    programs = folder / "bin"
    programs.mkdir()
    for name, does in (("srun", 'while [[ $1 = --* ]]; do shift; done; exec "$@"'), ("scontrol", "")):
        (programs / name).write_text(f"#!/bin/bash\n{does}\n")
        (programs / name).chmod(0o700)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    return subprocess.run(["bash", SCRIPT, str(silence), "sh", "-c", "exit 3"], cwd=folder, env=environment).returncode


def test_trainers_exit_code_is_written_and_returned(tmp_path: Path) -> None:
    (tmp_path / ALIVE).touch()
    assert start(tmp_path) == 3
    assert (tmp_path / EXIT).read_text() == "3\n"
    assert (tmp_path / CLAIM).read_text() == "7\n"


@pytest.mark.parametrize("file", [CLAIM, STOP, "superseded"])
def test_start_that_is_not_wanted_trains_nothing(tmp_path: Path, file: str) -> None:
    (tmp_path / ALIVE).touch()
    (tmp_path / file).touch()
    assert start(tmp_path) == 76
    assert not (tmp_path / EXIT).exists()


@pytest.mark.parametrize("is_there", [True, False])
def test_start_after_its_worker_died_trains_nothing(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        (tmp_path / ALIVE).touch()
        os.utime(tmp_path / ALIVE, (time.time() - 100,) * 2)
    assert start(tmp_path) == 76
    assert not (tmp_path / EXIT).exists()


def test_start_outside_its_folder_claims_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").unlink()
    (tmp_path / ALIVE).touch()
    assert start(tmp_path) == 76
    assert not (tmp_path / CLAIM).exists()
