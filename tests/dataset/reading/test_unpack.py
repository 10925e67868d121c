"""Packed files are read as if they were not, up to a limit of bytes and of memory."""

import gzip
import hashlib
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import file_sha256, read_examples
from dataset.example import PlainText
from dataset.reading.rows import is_light
from tests.dataset.example_files import PACKERS, refusal, zstd

each_kind = pytest.mark.parametrize("suffix", PACKERS)


def write(folder: Path, content: bytes, name: str) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@each_kind
@pytest.mark.parametrize(
    ("name", "content"),
    [("rows.jsonl", b'{"text": "a"}\n'), ("rows.csv", b"text\na\n"), ("rows.txt", b"a"), ("rows", b'[{"text": "a"}]')],
)
def test_each_file_kind_is_read_from_each_packer(tmp_path: Path, suffix: str, name: str, content: bytes) -> None:
    path = write(tmp_path, PACKERS[suffix](content), f"{name}.{suffix}".upper() if "." in name else name)
    sha256 = hashlib.sha256()
    assert list(read_examples(DatasetFile(path=path), sha256=sha256)) == [PlainText("a")]
    assert sha256.hexdigest() == file_sha256(path)
    assert not is_light(path)


@each_kind
def test_streams_one_after_another_are_all_read(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    content = pack(b'{"text": "a"}\n') + pack(b"") + pack(b'{"text": "b"}\n')
    path = write(tmp_path, content, f"rows.jsonl.{suffix}")
    assert list(read_examples(DatasetFile(path=path))) == [PlainText("a"), PlainText("b")]


def test_zeros_between_xz_streams_are_passed_over(tmp_path: Path) -> None:
    content = lzma.compress(b'{"text": "a"}\n') + bytes(8) + lzma.compress(b'{"text": "b"}\n') + bytes(4)
    assert len(list(read_examples(DatasetFile(path=write(tmp_path, content, "rows.jsonl.xz"))))) == 2


def test_skippable_zstd_frame_is_passed_over(tmp_path: Path) -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"size"
    content = skippable + zstd(b'{"text": "a"}\n')
    assert list(read_examples(DatasetFile(path=write(tmp_path, content, "rows.jsonl.zst")))) == [PlainText("a")]


@each_kind
@pytest.mark.parametrize(
    "spoil", [lambda packed: packed[:-9], lambda p: p[:12] + b"\xff" * 9 + p[21:], lambda p: p + b"x"]
)
def test_torn_file_is_refused(tmp_path: Path, suffix: str, spoil: Callable[[bytes], bytes]) -> None:
    rows = b"".join(b'{"text": "%d"}\n' % n for n in range(50))
    path = write(tmp_path, spoil(PACKERS[suffix](rows)), f"rows.jsonl.{suffix}")
    assert "is not a complete" in refusal(path)


@each_kind
def test_small_packed_file_with_huge_content_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, PACKERS[suffix](b'{"text": "a"}\n' * 100_000), f"rows.jsonl.{suffix}")
    assert path.stat().st_size < 20_000
    assert "unpacks to more than 100000 bytes" in refusal(path, max_bytes=100_000)


@pytest.mark.exhaustive
@each_kind
def test_overlong_packed_line_is_not_held(tmp_path: Path, suffix: str) -> None:
    part = PACKERS[suffix](b"a" * (32 << 20))
    path = write(tmp_path, PACKERS[suffix](b'{"text": "') + part * 20, f"rows.jsonl.{suffix}")
    code = (
        "import re, sys; from pathlib import Path; from dataset.dataset_report import check_file\n"
        "from dataset.dataset_file import DatasetFile\n"
        "found = check_file(DatasetFile(path=Path(sys.argv[1]), name='rows.jsonl'))\n"
        # getrusage would have what the process was that started this one.
        "peak = re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())\n"
        "print(found.errors[0].message, int(peak[1]) >> 10)"
    )
    command = [sys.executable, "-c", code, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "longer than 64 MiB" in output
    assert int(output.split()[-1]) < 450


def test_xz_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 << 20}]
    content = lzma.compress(b'{"text": "a"}\n', filters=filters)
    assert "Memory usage limit" in refusal(write(tmp_path, content, "rows.jsonl.xz"))
    content = lzma.compress(b'{"text": "a"}\n', preset=9)
    assert list(read_examples(DatasetFile(path=write(tmp_path, content, "rows.jsonl.xz")))) == [PlainText("a")]


def test_doubly_packed_file_is_refused(tmp_path: Path) -> None:
    assert "packed twice" in refusal(write(tmp_path, zstd(gzip.compress(b"a")), "rows.jsonl.gz.zst"))
    assert "packed Parquet" in refusal(write(tmp_path, gzip.compress(b"PAR1 and more"), "rows.parquet.gz"))
    tar = b"rows.jsonl".ljust(257, b"\0") + b"ustar\x0000"
    assert "tar archive" in refusal(write(tmp_path, gzip.compress(tar), "rows.tar.gz"))
