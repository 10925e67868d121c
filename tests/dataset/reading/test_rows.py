import gzip
import hashlib
import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from contract.failure import InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import file_sha256, read_examples
from dataset.example import Conversation
from tests.dataset.example_files import HELLO, refusal, write_csv, write_lines, write_parquet

ROW = json.dumps({"messages": HELLO}) + "\n"
PAIR = {"instruction": "Say hello.", "output": "hello"}


def test_digest_is_of_what_was_read(tmp_path: Path) -> None:
    files = [write_csv(tmp_path, ["text"], ["a"], ["b"]), write_parquet(tmp_path, [PAIR] * 3)]
    for name, content in {
        "a.json": json.dumps([{"messages": HELLO}]).encode() + b"\n\n",
        "a.jsonl": b"\n" + ROW.encode() * 3,
        "a.jsonl.gz": gzip.compress(ROW.encode()) + gzip.compress(ROW.encode()) + b"\0" * 8,
    }.items():
        files.append(tmp_path / name)
        files[-1].write_bytes(content)
    for path in files:
        sha256 = hashlib.sha256()
        list(read_examples(DatasetFile(path=path), sha256=sha256))
        assert sha256.hexdigest() == file_sha256(path), path.name


def test_file_larger_than_the_service_takes_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"messages": HELLO}] * 10)
    size = path.stat().st_size
    assert len(list(read_examples(DatasetFile(path=path), max_bytes=size))) == 10
    assert f"larger than {size - 1} bytes" in refusal(path, max_bytes=size - 1)


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.CSV.GZ", "rows"])
def test_packed_file_reads_like_the_plain_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = "instruction,output\nSay hello.,hello\n" if "CSV" in name else json.dumps(PAIR)
    path.write_bytes(gzip.compress(text.encode()))
    (example,) = read_examples(DatasetFile(path=path))
    assert isinstance(example, Conversation)
    assert example.messages[1]["content"] == "hello"


@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[:-9], lambda packed: packed[:20] + b"\xff" * 9, lambda p: p + b"x"]
)
def test_packed_file_that_is_not_whole_is_refused(tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(spoil(gzip.compress(ROW.encode() * 5)))  # type: ignore[operator]
    assert "not a complete gzip file" in refusal(path)


def test_small_packed_file_with_huge_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(ROW.encode() * 10_000))
    assert "unpacks to more than 100000 bytes" in refusal(path, max_bytes=100_000)


def test_small_parquet_with_huge_content_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [{"text": "word " * 1000}] * 1000)
    assert path.stat().st_size < 100_000
    assert "unpacks to more than 1000000 bytes" in refusal(path, max_bytes=1_000_000)


def test_parquet_changed_while_read_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, [{"text": "a"}] * 200)
    examples = read_examples(DatasetFile(path=path))
    next(examples)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=r"rows\.parquet changed while it was read"):
        list(examples)


def sparse(path: Path, start: bytes, size: int) -> Path:
    """A file of `size` bytes that takes no room on the disk: after `start` come zeros."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("name", "start"),
    [("rows.jsonl", ROW + '{"instruction": "'), ("rows.csv", 'text\nfirst\n"'), ("rows.csv", "text\na\n")],
)
def test_overlong_row_is_refused_and_never_held(tmp_path: Path, name: str, start: str) -> None:
    path = sparse(tmp_path / name, start.encode(), 2 << 30)
    tracemalloc.start()
    try:
        assert refusal(path).startswith("row 2: is longer than 64 MiB")
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_oversized_array_is_refused(tmp_path: Path) -> None:
    assert "JSON Lines" in refusal(sparse(tmp_path / "rows.json", b"[{}", 2 << 30))


def test_empty_file_is_refused(tmp_path: Path) -> None:
    assert "no rows" in refusal(write_lines(tmp_path, []))
    assert "no rows" in refusal(write_csv(tmp_path, ["text"]))
    assert "no rows" in refusal(write_parquet(tmp_path, []))


def test_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    path = write_lines(tmp_path, [{"messages": HELLO}])
    path.chmod(0)
    with not_root():
        assert "rows.jsonl cannot be read: Permission denied" in refusal(path)


@contextmanager
def not_root() -> Iterator[None]:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
