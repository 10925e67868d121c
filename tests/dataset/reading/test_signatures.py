"""A file that is no data set is refused once, by what it is and with what to do."""

import io
import json
import pickle
import sqlite3
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

from dataset.dataset_file import DatasetFile
from dataset.dataset_report import check_file

TABLE = pa.table({"text": ["a"] * 3})


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, '{"text": "a"}\n')
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return file.getvalue()


def arrow(stream: bool) -> bytes:
    file = io.BytesIO()
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(file, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return file.getvalue()


def sqlite() -> bytes:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE TABLE rows (text)")
        return database.serialize()
    finally:
        database.close()


KINDS = {
    "zip archive": zipped("rows.jsonl"),
    "empty zip archive": zipped(),
    "save a sheet of it as CSV": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "7z archive": b"7z\xbc\xaf\x27\x1c\0\4",
    "rar archive": b"Rar!\x1a\x07\x01\0",
    "tar archive": tarred(),
    "packed by lz4": b"\x04\x22\x4d\x18\x64",
    "Microsoft Office": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "Arrow file": arrow(stream=False),
    "datasets.Dataset.from_file": arrow(stream=True),
    "SQLite database": sqlite(),
    "Python pickle": pickle.dumps([{"text": "a"}]),
    "NumPy array": b"\x93NUMPY\x01\0",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "a PDF": b"%PDF-1.7\n",
    "an image": b"\x89PNG\r\n\x1a\n",
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
    "web page": b"\n<!DOCTYPE html>\n<html>",
    "is XML": b'<?xml version="1.0"?>\n<rows/>',
    "is binary": b"\x01\x02\x03\x04rest\nmore\n",
    "commas between its rows": b'{"text": "a"},\n{"text": "b"}\n',
    "more than one row on a line": b'{"text": "a"}{"text": "b"}\n',
    "single quotes": b"{'text': 'a'}\n{'text': 'b'}\n",
    "jq -c .": b'{\n  "text": "a"\n}\n{\n  "text": "b"\n}\n',
    "row of JSON on many lines": b'{"messages": [\n  {"role": "user"}\n]}\n',
    "which is not JSON": b"text\tlabel\na\tb\n",
}


@pytest.mark.parametrize(("words", "content"), KINDS.items(), ids=list(KINDS))
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.dat"])
def test_other_files_are_refused_once_with_advice(tmp_path: Path, words: str, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    found = check_file(DatasetFile(path=tmp_path / name, name=name))
    assert [(each.row, words in each.message) for each in found.errors] == [(None, True)], found.errors
    assert found.error_count == 1


@pytest.mark.parametrize("indent", [0, 2, "\t"])
def test_row_on_many_lines_is_refused(tmp_path: Path, indent: int | str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}, indent=indent))
    assert "jq -c ." in check_file(DatasetFile(path=path)).errors[0].message
    path.write_text(json.dumps([{"text": "hi"}], indent=indent))
    assert check_file(DatasetFile(path=path)).examples == 1


def test_torn_first_row_is_named_as_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": \n{"text": "b"}\n')
    assert [problem.row for problem in check_file(DatasetFile(path=path)).errors] == [1]
