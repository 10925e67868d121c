"""Reads the names and shapes of a base model's weights from its safetensors headers: no torch, no weights."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contract.failure import FailureReason, InputError
from contract.quote import cut, quote

_LONGEST_HEADER = 100_000_000  # the safetensors format's own limit, in bytes


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight, by its name. Raises InputError for a torn file.

    Format: 8 bytes of little-endian header length, then a JSON object (github.com/huggingface/safetensors).
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            shapes.update(_header(file))
        # RecursionError: a header of nothing but brackets.
        except (ValueError, RecursionError, OSError) as error:
            raise InputError(
                FailureReason.MODEL_UNSUPPORTED,
                f"model: {cut(file.name)} is not a whole safetensors file: {cut(str(error), 200)}",
                "model",
            ) from error
    return shapes


def _header(path: Path) -> dict[str, list[int]]:
    """Raises ValueError, RecursionError, OSError."""
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


def check_target_modules(targets: Iterable[str], shapes: dict[str, list[int]]) -> None:
    """Raises InputError for a name that matches no module with a matrix of weights; lists what would.

    A name matches a module's last parts, as in PEFT: "q_proj", "self_attn.q_proj".
    """
    modules = {
        name.removesuffix(".weight") for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2
    }
    endings = {ending for module in modules for ending in _endings(module)}
    for target in targets:
        if target not in endings:
            candidates = sorted({module.rsplit(".", 1)[-1] for module in modules if _in_a_layer(module)})
            raise InputError(
                FailureReason.TARGET_MODULES_UNMATCHED,
                f"adapter.target_modules: {quote(target)} matches no module of the model; "
                f"it has {', '.join(candidates)}",
                "adapter.target_modules",
            )


def _endings(module: str) -> Iterator[str]:
    """Its last part, its last two parts, and so on."""
    ending = module
    while ending:
        yield ending
        ending = ending.partition(".")[2]


def _in_a_layer(module: str) -> bool:
    """Embeddings and the output head stand outside the numbered layers."""
    return any(part.isdigit() for part in module.split("."))
