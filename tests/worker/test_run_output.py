import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.failure import Failure, FailureCode
from contract.run_dir import RunDir
from worker.run_output import LOG_TAIL, read_error, read_log_tail, redact_log


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 2 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True, text=True
    )
    assert mounted.returncode == 0, f"a full disk wants one to fill, which root can mount: {mounted.stderr}"
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_speechless_trainer_met_a_full_disk(small_disk: Path) -> None:
    run = RunDir(small_disk)
    assert read_error(run) is None
    (small_disk / "filler").write_bytes(bytes(3 << 19))
    failure = read_error(run)
    assert failure is not None
    assert failure.code is FailureCode.DISK_FULL


def test_trainer_failure_outranks_its_log(small_disk: Path) -> None:
    said = Failure(code=FailureCode.OUT_OF_MEMORY, message="too big")
    (small_disk / "error.json").write_text(said.model_dump_json())
    (small_disk / "filler").write_bytes(bytes(3 << 19))
    assert read_error(RunDir(small_disk)) == said


def test_missing_run_folder_tells_nothing(tmp_path: Path) -> None:
    assert read_error(RunDir(tmp_path / "gone")) is None


SECRET = "hf_planted0123456789"


@pytest.mark.parametrize("end", ["\n", "\r"])
@pytest.mark.parametrize("shown", range(1, len(SECRET)))
def test_secret_cut_by_the_tail_is_hidden(tmp_path: Path, shown: int, end: str) -> None:
    log = tmp_path / "trainer.log"
    rest = "x" * (LOG_TAIL - shown - len(end))
    log.write_text(f"the token {SECRET}{end}{rest}", newline="")
    assert read_log_tail(log) == rest


def test_log_loses_only_its_secrets(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    written = b"10%|#\r20%|##\r\n\xff\0 caf\xc3\xa9 hf_planted0123456789\r\npassword=planted\n"
    log.write_bytes(written)
    redact_log(log)
    assert log.read_bytes() == written.replace(b"planted0123456789", b"***").replace(b"planted", b"***")
    assert list(tmp_path.iterdir()) == [log]


def test_log_without_a_secret_is_not_written_anew(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    log.write_text("step 1: loss 2.5\n" * 1000)
    before = log.stat().st_ino
    redact_log(log)
    assert log.stat().st_ino == before
