import os
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.archive import Archive, Read

FILES = {"a": os.urandom(200_000), "deep/b": b"two", "deep/empty": b"", "x" * 120: os.urandom(65_535)}


def reader(files: dict[str, bytes]) -> Read:
    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        for at in range(start, end, 50_000):
            yield files[name][at : min(end, at + 50_000)]

    return read


READ = reader(FILES)
ARCHIVE = Archive("root", [(name, len(content)) for name, content in FILES.items()])
WHOLE = b"".join(ARCHIVE.read(0, ARCHIVE.size, READ))


def test_archive_holds_all_files_below_root() -> None:
    assert len(WHOLE) == ARCHIVE.size
    with tarfile.open(fileobj=BytesIO(WHOLE), mode="r:") as archive:
        assert archive.getnames() == [f"root/{name}" for name in FILES]
        for name, content in FILES.items():
            member = archive.extractfile(f"root/{name}")
            assert member is not None
            assert member.read() == content


def test_tar_program_unpacks_archive(tmp_path: Path) -> None:
    (tmp_path / "archive.tar").write_bytes(WHOLE)
    result = subprocess.run(["tar", "xf", "archive.tar"], cwd=tmp_path, capture_output=True, check=True)
    assert result.stderr == b""
    assert {name: (tmp_path / "root" / name).read_bytes() for name in FILES} == FILES


def test_empty_archive_is_valid() -> None:
    empty = Archive("root", [])
    content = b"".join(empty.read(0, empty.size, READ))
    with tarfile.open(fileobj=BytesIO(content), mode="r:") as archive:
        assert archive.getnames() == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, ARCHIVE.size), st.integers(0, ARCHIVE.size))
def test_any_range_equals_that_slice(one: int, other: int) -> None:
    start, end = sorted([one, other])
    assert b"".join(ARCHIVE.read(start, end, READ)) == WHOLE[start:end]


@pytest.mark.parametrize("edge", [0, 512, 512 + 200_000, 512 + 200_192, ARCHIVE.size - 1024, ARCHIVE.size])
def test_ranges_join_at_edges_of_headers_and_padding(edge: int) -> None:
    for cut in range(max(0, edge - 2), min(ARCHIVE.size, edge + 2) + 1):
        assert b"".join([*ARCHIVE.read(0, cut, READ), *ARCHIVE.read(cut, ARCHIVE.size, READ)]) == WHOLE


def test_range_reads_only_its_own_bytes() -> None:
    requested: list[tuple[str, int]] = []

    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        requested.append((name, end - start))
        return READ(name, start, end)

    list(ARCHIVE.read(100_000, 150_000, read))
    assert requested == [("a", 50_000)]


def test_missing_file_is_noticed_before_first_chunk() -> None:
    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        raise FileNotFoundError(name)
        yield b""

    with pytest.raises(FileNotFoundError):
        next(ARCHIVE.read(0, ARCHIVE.size, read))


def test_memory_does_not_grow_with_files() -> None:
    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        return (bytes(min(1 << 20, end - at)) for at in range(start, end, 1 << 20))

    big = Archive("root", [("weights", 200 << 20)])
    tracemalloc.start()
    assert sum(map(len, big.read(0, big.size, read))) == big.size
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
