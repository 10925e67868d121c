"""The free space of a worker's home folder, on a real small disk."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.machine.disk import DiskWatch

MIB = 1 << 20


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def is_low(watch: DiskWatch) -> bool:
    watch.measure()
    assert watch.latest is not None
    return watch.latest.low


def fill(home: Path, mebibytes: float) -> None:
    (home / "file").write_bytes(bytes(int(mebibytes * MIB)))


def test_disk_is_low_below_the_reserve_until_more_is_free(home: Path) -> None:
    watch = DiskWatch(home, 10 * MIB)
    assert not is_low(watch)
    assert watch.latest is not None
    assert watch.latest.free_bytes == watch.latest.total_bytes == 20 * MIB
    fill(home, 11)
    assert is_low(watch)
    fill(home, 9.5)
    assert is_low(watch)
    fill(home, 8.5)
    assert not is_low(watch)
    fill(home, 9.5)
    assert not is_low(watch)


def test_disk_is_never_low_without_a_reserve(home: Path) -> None:
    fill(home, 19)
    assert not is_low(DiskWatch(home, 0))


def test_fullest_disk_decides(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    large = tmp_path_factory.mktemp("home")
    assert not is_low(DiskWatch(large, 30 * MIB))
    (large / "runs").symlink_to(home)
    assert is_low(DiskWatch(large, 30 * MIB))


def test_missing_home_is_logged_and_kept_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    watch = DiskWatch(tmp_path / "none", 1)
    watch.measure()
    assert watch.latest is None
    assert "is unknown" in caplog.text
