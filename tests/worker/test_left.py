import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.failure import Failure, FailureReason
from contract.run_dir import RunDir
from worker.left import read_error


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 2 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True, text=True
    )
    assert mounted.returncode == 0, f"a full disk wants one to fill, which root can mount: {mounted.stderr}"
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_a_trainer_that_had_no_room_to_say_why_met_a_full_disk(small_disk: Path) -> None:
    run = RunDir(small_disk)
    assert read_error(run) is None
    (small_disk / "filler").write_bytes(bytes(3 << 19))
    failure = read_error(run)
    assert failure is not None
    assert failure.reason is FailureReason.DISK_FULL


def test_what_a_trainer_said_counts_more(small_disk: Path) -> None:
    said = Failure(reason=FailureReason.OUT_OF_MEMORY, message="too big")
    (small_disk / "error.json").write_text(said.model_dump_json())
    (small_disk / "filler").write_bytes(bytes(3 << 19))
    assert read_error(RunDir(small_disk)) == said


def test_of_a_run_whose_folder_has_gone_nothing_is_known(tmp_path: Path) -> None:
    assert read_error(RunDir(tmp_path / "gone")) is None
