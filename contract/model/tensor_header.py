"""Reads the header of a safetensors file: no torch, no weights."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.quote import cut

_LONGEST = 100_000_000  # the format's own limit, in bytes


@dataclass(frozen=True)
class Tensor:
    dtype: str
    """Such as "BF16"."""
    shape: list[int]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """By name. Raises ValueError, RecursionError for a file that is torn, or is none of safetensors; OSError.

    Format: 8 bytes of little-endian header length, a JSON object, and the tensors' bytes to the end of the file
    (github.com/huggingface/safetensors).
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    whole = 8 + length + max((_end(name, entry) for name, entry in entries.items()), default=0)
    if size != whole:
        raise ValueError(f"it has {size} bytes of {whole}")
    return tensors


def _tensor(name: str, entry: Any) -> Tensor:
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"{cut(name)} has no shape")
    if not isinstance(dtype, str):
        raise ValueError(f"{cut(name)} has no dtype")
    return Tensor(dtype, shape)


def _end(name: str, entry: Any) -> int:
    match entry.get("data_offsets"):
        case [int(), int(end)]:
            return end
    raise ValueError(f"{cut(name)} has no data_offsets")
