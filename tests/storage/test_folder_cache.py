"""Fetched folders are kept as long as there is room."""

import os
import time
from pathlib import Path

import pytest

from storage import folder_cache

HOUR = 60 * 60


def add(cache: Path, name: str, hours_ago: float = 0, most_bytes: int = 100) -> Path:
    """A folder of 40 bytes."""
    folder = cache / "runs" / name / "adapter"
    with folder_cache.adding(cache, folder, most_bytes) as beside:
        (beside / "inner").mkdir(parents=True)
        (beside / "weights").write_bytes(b"x" * 30)
        (beside / "inner" / "more").write_bytes(b"x" * 10)
    used_at = time.time() - hours_ago * HOUR
    os.utime(folder, (used_at, used_at))
    return folder


def test_least_recently_used_folders_make_room(tmp_path: Path) -> None:
    old, older, oldest = (add(tmp_path, str(hours), hours, most_bytes=1000) for hours in (1, 2, 3))
    assert folder_cache.use(oldest)
    new = add(tmp_path, "new")
    assert [each.is_dir() for each in (old, older, oldest, new)] == [False, False, True, True]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"weights", "more"}


def test_folders_just_used_stay_above_the_limit(tmp_path: Path) -> None:
    for number in range(3):
        add(tmp_path, str(number), most_bytes=1)
    assert len([*tmp_path.rglob("weights")]) == 3
    assert not folder_cache.use(tmp_path / "runs" / "another")


def test_slower_fetch_of_the_same_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    with folder_cache.adding(tmp_path, folder) as slower:
        slower.mkdir()
        (slower / "weights").touch()
        with folder_cache.adding(tmp_path, folder) as faster:
            faster.mkdir()
            (faster / "weights").touch()
    assert [*tmp_path.iterdir()] == [folder]


def test_failed_fetch_leaves_nothing(tmp_path: Path) -> None:
    def fetch() -> None:
        with folder_cache.adding(tmp_path, tmp_path / "adapter") as beside:
            beside.mkdir()
            (beside / "weights").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fetch()
    assert [*tmp_path.iterdir()] == []
