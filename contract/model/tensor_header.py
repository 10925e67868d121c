"""Reads the header of a safetensors file, without torch and without reading weights."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.formatting import truncate
from contract.json_objects import unique_object

_LONGEST = 100_000_000  # the format's own limit, in bytes


@dataclass(frozen=True)
class TensorHeader:
    dtype: str
    """Format of the numbers, such as "BF16"."""
    shape: list[int]


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Headers by name. Raises ValueError or RecursionError for a damaged file or another format, and OSError.

    Format: 8 bytes of little-endian header length, a JSON object, and the tensors' bytes to the end of the file
    (github.com/huggingface/safetensors).
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=unique_object)
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    whole = 8 + length + max((_end(name, entry) for name, entry in entries.items()), default=0)
    if size != whole:
        raise ValueError(f"it has {size} bytes of {whole}")
    return tensors


def _tensor(name: str, entry: Any) -> TensorHeader:
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"{truncate(name)} has no shape")
    if not isinstance(dtype, str):
        raise ValueError(f"{truncate(name)} has no dtype")
    return TensorHeader(dtype, shape)


def _end(name: str, entry: Any) -> int:
    match entry.get("data_offsets"):
        case [int(), int(end)]:
            return end
    raise ValueError(f"{truncate(name)} has no data_offsets")
