"""Reads the names and shapes of a base model's weights from its safetensors headers: no torch, no weights."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from contract.failure import FailureReason, InputError
from contract.loaded_names import Shapes, loaded_shapes, model_type, read_config
from contract.quote import cut

_LONGEST_HEADER = 100_000_000  # the safetensors format's own limit, in bytes


class LoadedBase(NamedTuple):
    shapes: Shapes
    """By the names of the loaded model."""
    kind: str
    """Its model_type."""


def loaded_base(folder: Path) -> LoadedBase:
    """Raises InputError for a torn file."""
    try:
        config = read_config(folder)
    except (OSError, ValueError, RecursionError):
        config = {}  # Loading says what is wrong with it.
    return LoadedBase(loaded_shapes(weight_shapes(folder), config), model_type(config))


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight, by its name. Raises InputError for a torn file."""
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            shapes.update(tensor_shapes(file))
        # RecursionError: a header of nothing but brackets.
        except (ValueError, RecursionError, OSError) as error:
            raise InputError(
                FailureReason.MODEL_UNSUPPORTED,
                f"model: {cut(file.name)} is not a whole safetensors file: {cut(str(error), 200)}",
                "model",
            ) from error
    return shapes


def tensor_shapes(path: Path) -> dict[str, list[int]]:
    """Of one safetensors file. Raises ValueError, RecursionError, OSError where it is none.

    Format: 8 bytes of little-endian header length, then a JSON object (github.com/huggingface/safetensors).
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return {name: _shape(name, entry) for name, entry in header.items() if name != "__metadata__"}


def _shape(name: str, entry: Any) -> list[int]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise ValueError(f"{cut(name)} has no shape")
    return shape
