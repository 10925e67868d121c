"""Writes small files of examples, and reads what comes of them."""

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from contract.failure import Failure, FailureCode, InputError
from dataset.dataset_file import DatasetFile
from dataset.dataset_reader import read_examples
from dataset.example import Conversation, Example

HELLO: list[Any] = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
ANSWERED_ROWS: dict[str, dict[str, Any]] = {
    "messages": {"messages": HELLO},
    "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
    "prompt_completion": {"prompt": "hi", "completion": "hello"},
    "prompt_completion of messages": {"prompt": HELLO[:1], "completion": HELLO[1:]},
    "belle": {"input": "hi", "target": "hello"},
    "self_instruct": {"instruction": "hi", "instances": [{"input": "", "output": "hello"}]},
    "chinese_vicuna": {"input": ["hi"], "output": ["hello"]},
    "alpaca": {"instruction": "hi", "output": "hello"},
}
"""A row with one answer in each format."""
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def write_lines(folder: Path, rows: list[Any], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(folder: Path, header: list[str], *rows: list[str]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_parquet(folder: Path, rows: list[Any], **options: Any) -> Path:
    path = folder / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


def failure(path: Path, format: Any = "auto", columns: Any = None, learned: Any = None, **more: Any) -> Failure:
    with pytest.raises(InputError) as caught:
        list(read_examples(DatasetFile(path=path, format=format, columns=columns, learned=learned), **more))
    assert caught.value.failure.code == FailureCode.DATASET_INVALID
    return caught.value.failure


def refusal(path: Path, *settings: Any, **more: Any) -> str:
    return failure(path, *settings, **more).message


def read_row(folder: Path, row: Any, format: Any = "auto", columns: Any = None, learned: Any = None) -> Example:
    path = write_lines(folder, [row])
    (example,) = read_examples(DatasetFile(path=path, format=format, columns=columns, learned=learned))
    return example


def read_conversation(folder: Path, row: Any, *settings: Any, **more: Any) -> Conversation:
    example = read_row(folder, row, *settings, **more)
    assert isinstance(example, Conversation)
    return example


def refusal_of_row(folder: Path, row: Any, *settings: Any, **more: Any) -> str:
    message = refusal(write_lines(folder, [row]), *settings, **more)
    assert message.startswith("row 1: ")
    return message


def zstd(data: bytes) -> bytes:
    with pyarrow.BufferOutputStream() as sink:
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        return bytes(sink.getvalue().to_pybytes())


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}
