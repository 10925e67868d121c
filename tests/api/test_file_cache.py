"""What was read of a file is read again as soon as the file may have changed."""

import os
from pathlib import Path

import pytest

from api.file_cache import FileCache


class Reader:
    def __init__(self, file: Path, settled_seconds: float = 0.0) -> None:
        self.file = file
        self.times = 0
        self.cache: FileCache[bytes] = FileCache(2, settled_seconds)

    def read(self, key: str = "") -> bytes:
        return self.cache.get(key, [self.file], self._read)

    def _read(self) -> bytes:
        self.times += 1
        return self.file.read_bytes()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"one")
    return tmp_path / "file"


def test_unchanged_file_is_read_once(file: Path) -> None:
    reader = Reader(file)
    assert [reader.read() for _ in range(3)] == [b"one"] * 3
    assert reader.times == 1


def test_rewrite_with_the_same_size_and_time_is_read_again(file: Path) -> None:
    reader = Reader(file)
    reader.read()
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:
        file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader.read() == b"two"


def test_file_that_has_just_changed_is_read_again(file: Path) -> None:
    reader = Reader(file, settled_seconds=3600.0)
    assert [reader.read() for _ in range(3)] == [b"one"] * 3
    assert reader.times == 3


def test_least_recently_used_result_is_dropped(file: Path) -> None:
    reader = Reader(file)
    for key in ("a", "b", "a", "c", "a", "b"):
        reader.read(key)
    assert reader.times == 4


def test_failed_read_is_not_kept(file: Path, tmp_path: Path) -> None:
    missing = Reader(tmp_path / "missing")
    with pytest.raises(FileNotFoundError):
        missing.read()
    (tmp_path / "missing").write_bytes(b"here")
    assert missing.read() == b"here"
