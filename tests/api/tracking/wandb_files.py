"""Reads what the package of Weights & Biases writes in offline mode: protobuf records in a log like LevelDB's."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_BLOCK = 32768
_HEADER = 7
_LAST = (1, 4)
"""A record's only part, or its last one."""


def read_records(folder: Path) -> Iterator[Any]:
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    data = file.read_bytes()
    assert data.startswith(b":W&B")
    at, record = _HEADER, b""
    while at + _HEADER <= len(data):
        if (left := _BLOCK - at % _BLOCK) < _HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + _HEADER])
        at += _HEADER
        record += data[at : at + length]
        at += length
        if kind in _LAST:
            parsed = Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def history(folder: Path) -> list[dict[str, Any]]:
    rows = [each.history.item for each in read_records(folder) if each.WhichOneof("record_type") == "history"]
    return [{".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


def run(folder: Path) -> Any:
    return next(each.run for each in read_records(folder) if each.WhichOneof("record_type") == "run")


def exit_code(folder: Path) -> int:
    return next(int(each.exit.exit_code) for each in read_records(folder) if each.WhichOneof("record_type") == "exit")
