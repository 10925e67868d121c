"""Reads a model's config.json, and refuses models that no adapter can be trained on."""

import json
from pathlib import Path
from typing import Any

from contract.failure import FailureCode, InputError
from contract.formatting import format_value, truncate
from contract.json_objects import unique_object

_LARGEST = 100_000_000  # bytes; the index of a model with many shards is among the largest

_DTYPES = ("auto", "bfloat16", "double", "float", "float16", "float32", "float64", "half")
"""torch's names of the formats in which an adapter can be trained."""


def read_model_config(folder: Path) -> dict[str, Any]:
    """Raises InputError for files that transformers cannot read."""
    config = read_object(folder / "config.json")
    if (folder / "generation_config.json").exists():
        read_object(folder / "generation_config.json")
    kind = config.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise unsupported(f'model_type of config.json is {format_value(kind)}; it is a word such as "llama"')
    for name in ("dtype", "torch_dtype"):
        if isinstance(given := config.get(name), str) and given.removeprefix("torch.") not in _DTYPES:
            raise unsupported(f"{name} of config.json is {format_value(given)}; use float32, float16 or bfloat16")
    return config


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a model's folder. Raises InputError for anything else, and OSError for a fault of the disk."""
    try:
        with path.open("rb") as file:
            read = json.loads(file.read(_LARGEST), object_pairs_hook=unique_object)
    # RecursionError: nothing but brackets.
    except (ValueError, RecursionError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise unsupported(f"{path.name} cannot be read as JSON: {truncate(str(error), 200)}") from error
    if not isinstance(read, dict):
        raise unsupported(f"{path.name} holds {format_value(read)}, which is not a JSON object")
    return read


def unsupported(problem: str) -> InputError:
    return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: {problem}", "model")
