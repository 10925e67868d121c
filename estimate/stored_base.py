"""What becomes of a base whose files are quantised, and the bytes of its weights before and after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from contract.model.folder import LoadedBase
from contract.recipe import Recipe
from estimate.weights import base_bytes

_GB = 1_000_000_000


@dataclass(frozen=True)
class StoredBase:
    stored_as: str
    """How the files are quantised, for people."""
    loaded_as: Literal["as_stored", "dequantised"]
    file_bytes: int
    """Bytes of the weights in the files."""
    loaded_bytes: int
    """Bytes of the weights in training: those that are not in 4 or 8 bits in bf16, on one device."""


def stored_base(recipe: Recipe, base: LoadedBase) -> StoredBase | None:
    """None for a base whose files are not quantised."""
    if base.quantisation is None or not base.stored_bytes:
        return None
    return StoredBase(
        stored_as=base.quantisation.label,
        loaded_as="dequantised" if base.trained_bits is None else "as_stored",
        file_bytes=round(base_bytes(None, "bf16", base.shapes, base.stored_bytes)),
        loaded_bytes=round(base_bytes(recipe.base_bits, "bf16", base.shapes, kept_bytes(base))),
    )


def kept_bytes(base: LoadedBase) -> Mapping[str, int]:
    """Bytes of each weight that is loaded as it is stored."""
    return {} if base.trained_bits is None else base.stored_bytes


def describe_dequantised(recipe: Recipe, base: LoadedBase) -> list[str]:
    """For people; empty for any other base."""
    stored = stored_base(recipe, base)
    if stored is None or stored.loaded_as == "as_stored":
        return []
    then = f"quantised again to {recipe.base_bits} bits" if recipe.base_bits else "trained in 16 bits"
    advice = "" if recipe.base_bits else "; base_bits 4 takes less"
    return [
        f"model: its files are {stored.stored_as}; it is dequantised and {then}: {stored.loaded_bytes / _GB:.1f} GB of "
        f"weights instead of {stored.file_bytes / _GB:.1f} GB{advice}"
    ]
