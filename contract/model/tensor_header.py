"""Reads the header of a safetensors file, without torch and without reading weights."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.formatting import truncate
from contract.json_objects import unique_object

_LONGEST = 100_000_000  # the format's own limit, in bytes
_LARGEST_READ = 1_000_000
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits per number. Formats that are not here are newer."""


@dataclass(frozen=True)
class TensorHeader:
    dtype: str
    """Format of the numbers, such as "BF16"."""
    shape: list[int]
    file: Path
    begin: int
    """Position of its first byte in the file."""
    size: int
    """Number of its bytes."""

    def read_bytes(self) -> bytes:
        """For small tensors. Raises ValueError for a large one, and OSError."""
        if self.size > _LARGEST_READ:
            raise ValueError(f"{self.size} bytes, where a few are expected")
        with self.file.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.size)


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
    tensors = {name: _tensor(name, entry, path, 8 + length) for name, entry in entries.items()}
    whole = _check_places(tensors, 8 + length)
    if size != whole:
        raise ValueError(f"it has {size} bytes of {whole}")
    return tensors


def _tensor(name: str, entry: Any, file: Path, data: int) -> TensorHeader:
    """`data` is the position at which the offsets begin."""
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"{truncate(name)} has no shape")
    if not isinstance(dtype, str):
        raise ValueError(f"{truncate(name)} has no dtype")
    match entry.get("data_offsets"):
        case [int(start), int(end)]:
            return TensorHeader(dtype, shape, file, data + start, end - start)
    raise ValueError(f"{truncate(name)} has no data_offsets")


def _check_places(tensors: dict[str, TensorHeader], data: int) -> int:
    """Number of bytes of the file, whose tensors follow each other without gaps. Raises ValueError."""
    reached = data
    for name, tensor in sorted(tensors.items(), key=lambda each: (each[1].begin, each[1].size)):
        expected = math.prod(tensor.shape) * _BITS[tensor.dtype] // 8 if tensor.dtype in _BITS else tensor.size
        if tensor.begin != reached or tensor.size != expected:
            start = tensor.begin - data
            raise ValueError(
                f"{truncate(name)} has the bytes {start} to {start + tensor.size}, where {reached - data} to "
                f"{reached - data + expected} is its place"
            )
        reached += tensor.size
    return reached
