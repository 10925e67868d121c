"""Reads the names and shapes of a base model's weights from its safetensors headers: no torch, no weights."""

import json
from collections.abc import Iterable
from pathlib import Path

from contract.failure import FailureReason, InputError

_LONGEST_HEADER = 100_000_000  # the safetensors format's own limit, in bytes


def weight_shapes(folder: Path) -> dict[str, list[int]]:
    """Shape of every weight, by its name. Raises InputError for a torn file.

    Format: 8 bytes of little-endian header length, then a JSON object (github.com/huggingface/safetensors).
    """
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            shapes.update(_header(file))
        except (ValueError, KeyError, OSError) as error:
            raise InputError(
                FailureReason.MODEL_UNSUPPORTED, f"model: {file.name} is not a whole safetensors file: {error}", "model"
            ) from error
    return shapes


def _header(path: Path) -> dict[str, list[int]]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}


def check_target_modules(targets: Iterable[str], shapes: dict[str, list[int]]) -> None:
    """Raises InputError for a name that matches no module with a matrix of weights; lists what would.

    A name matches a module's last parts, as in PEFT: "q_proj", "self_attn.q_proj".
    """
    modules = {
        name.removesuffix(".weight") for name, shape in shapes.items() if name.endswith(".weight") and len(shape) == 2
    }
    for target in targets:
        if not any(module == target or module.endswith(f".{target}") for module in modules):
            candidates = sorted({module.rsplit(".", 1)[-1] for module in modules if _in_a_layer(module)})
            raise InputError(
                FailureReason.TARGET_MODULES_UNMATCHED,
                f"adapter.target_modules: {target!r} matches no module of the model; it has {', '.join(candidates)}",
                "adapter.target_modules",
            )


def _in_a_layer(module: str) -> bool:
    """Embeddings and the output head stand outside the numbered layers."""
    return any(part.isdigit() for part in module.split("."))
