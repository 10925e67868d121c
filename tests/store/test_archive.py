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
CHECKSUM = ARCHIVE.checksum(READ)
WHOLE = b"".join(ARCHIVE.read(0, ARCHIVE.size, CHECKSUM, READ))


def test_the_archive_holds_the_files_below_its_root_and_is_as_long_as_it_says() -> None:
    assert len(WHOLE) == ARCHIVE.size
    with tarfile.open(fileobj=BytesIO(WHOLE), mode="r:gz") as archive:
        assert archive.getnames() == [f"root/{name}" for name in FILES]
        for name, content in FILES.items():
            member = archive.extractfile(f"root/{name}")
            assert member is not None
            assert member.read() == content


def test_tar_and_gzip_themselves_take_it(tmp_path: Path) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(WHOLE)
    subprocess.run(["gzip", "--test", "archive.tar.gz"], cwd=tmp_path, check=True)
    told = subprocess.run(["tar", "xzf", "archive.tar.gz"], cwd=tmp_path, capture_output=True, check=True)
    assert told.stderr == b""
    assert {name: (tmp_path / "root" / name).read_bytes() for name in FILES} == FILES


def test_an_archive_of_nothing_is_one_too() -> None:
    empty = Archive("root", [])
    content = b"".join(empty.read(0, empty.size, empty.checksum(READ), READ))
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as archive:
        assert archive.getnames() == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, ARCHIVE.size), st.integers(0, ARCHIVE.size))
def test_any_part_is_that_part_of_the_whole(one: int, other: int) -> None:
    start, end = sorted([one, other])
    assert b"".join(ARCHIVE.read(start, end, CHECKSUM, READ)) == WHOLE[start:end]


@pytest.mark.parametrize("edge", [0, 10, 15, 10 + 65_540, 15 + 65_540, ARCHIVE.size - 8])
def test_parts_join_at_the_edges_of_header_blocks_and_trailer(edge: int) -> None:
    for cut in range(max(0, edge - 2), edge + 3):
        parts = [*ARCHIVE.read(0, cut, CHECKSUM, READ), *ARCHIVE.read(cut, ARCHIVE.size, CHECKSUM, READ)]
        assert b"".join(parts) == WHOLE


def test_of_what_lies_before_a_part_nothing_is_read() -> None:
    asked: list[tuple[str, int]] = []

    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        asked.append((name, end - start))
        return READ(name, start, end)

    list(ARCHIVE.read(ARCHIVE.size - 10_000, ARCHIVE.size, CHECKSUM, read))
    assert sum(size for _, size in asked) <= 2 * 65_535


def test_the_memory_that_it_takes_does_not_grow_with_the_files() -> None:
    def read(name: str, start: int, end: int) -> Iterator[bytes]:
        return (bytes(min(1 << 20, end - at)) for at in range(start, end, 1 << 20))

    big = Archive("root", [("weights", 200 << 20)])
    tracemalloc.start()
    assert sum(map(len, big.read(0, big.size, 0, read))) == big.size
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
