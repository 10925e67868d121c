"""How many numbers a recipe trains, by module: exactly those that PEFT will."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.model.earlier_adapter import WEIGHTS
from contract.model.folder import tensor_shapes
from contract.model.loaded_names import Shapes, model_type
from contract.model.target_modules import endings, target_modules
from contract.recipe import Adapter
from estimate.architecture import is_embedding, is_transposed

_EARLIER = "base_model.model."


@dataclass(frozen=True)
class Lora:
    rank: int
    into: int
    """Numbers that the module reads for a token."""
    out: int
    """Numbers that it gives."""


@dataclass(frozen=True)
class Trained:
    """By the names of modules."""

    loras: dict[str, Lora] = field(default_factory=dict)
    """Of those that are adapted."""
    magnitudes: bool = False
    """DoRA."""
    whole: frozenset[str] = frozenset()
    """Those that are trained as they are."""
    tensors: dict[str, list[int]] = field(default_factory=dict)
    """Numbers in each tensor that is trained."""
    added: int = 0
    """Numbers that the model has not without them: all but the biases, which are its own."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Modules that target_modules matches and that are not adapted, and why."""

    @property
    def parameters(self) -> int:
        return sum(map(sum, self.tensors.values()))


def trained(adapter: Adapter, shapes: Shapes, config: dict[str, Any], earlier: Path | None) -> Trained:
    """`shapes` are those of contract.model.loaded_names; `earlier` is the folder of adapter.start_from. The
    adapter has been checked (target_modules.check_adapter). Raises OSError, ValueError for a torn earlier one.

    A LoRA of rank r has r (in + out) numbers (Hu et al. 2021, arXiv:2106.09685), DoRA one more for each output (Liu et
    al. 2024, arXiv:2402.09353).
    """
    if earlier is not None:
        return _earlier(tensor_shapes(earlier / WEIGHTS))
    modules = {name.rpartition(".")[0] for name in shapes}
    # As in PEFT: by the end of the name, not by its parts.
    whole = frozenset(module for module in modules if module.endswith(tuple(adapter.modules_to_save)))
    targets = target_modules(adapter, shapes, model_type(config))
    loras = {
        module: Lora(_rank(adapter, module), *_sizes(module, shapes[f"{module}.weight"], config))
        for module in sorted(targets.adapted)
    }
    tensors = {module: _numbers(lora, adapter.dora) for module, lora in loras.items()}
    for name, shape in shapes.items():
        if name.rpartition(".")[0] in whole:
            tensors.setdefault(name.rpartition(".")[0], []).append(math.prod(shape))
    added = sum(map(sum, tensors.values()))
    for name in _biases(adapter, shapes, targets.adapted):
        if name.rpartition(".")[0] not in whole:
            tensors.setdefault(name.rpartition(".")[0], []).append(math.prod(shapes[name]))
    return Trained(loras, adapter.dora, whole, tensors, added, targets.left_out)


def _rank(adapter: Adapter, module: str) -> int:
    """As in PEFT: the first of the patterns that the module's name ends with."""
    ends = set(endings(module))
    return next((rank for name, rank in adapter.rank_pattern.items() if name in ends), adapter.r)


def _sizes(module: str, shape: list[int], config: dict[str, Any]) -> tuple[int, int]:
    """In and out."""
    first, second = shape
    return (first, second) if is_embedding(module) or is_transposed(module, config) else (second, first)


def _numbers(lora: Lora, dora: bool) -> list[int]:
    """Of A, B and the magnitudes."""
    return [lora.rank * lora.into, lora.rank * lora.out, *([lora.out] if dora else [])]


def _biases(adapter: Adapter, shapes: Shapes, adapted: set[str]) -> list[str]:
    match adapter.bias:
        case "all":
            return [name for name in shapes if "bias" in name]
        case "lora_only":
            return [name for name in shapes if name.endswith(".bias") and name.removesuffix(".bias") in adapted]
    return []


def _earlier(shapes: Shapes) -> Trained:
    """What an adapter's file holds is what is trained further; all of it stands beside the base but for biases."""
    parts: dict[str, dict[str, list[int]]] = {}
    for name, shape in shapes.items():
        plain = name.removeprefix(_EARLIER)
        module, lora, part = plain.partition(".lora_")
        if not lora:
            module, _, part = plain.rpartition(".")
        parts.setdefault(module, {})[part.removesuffix(".weight")] = shape
    loras = {module: found for module, held in parts.items() if (found := _lora(held)) is not None}
    whole = frozenset(module for module, held in parts.items() if "weight" in held)
    tensors = {module: [math.prod(shape) for shape in held.values()] for module, held in parts.items()}
    added = sum(
        math.prod(shape)
        for module, held in parts.items()
        for part, shape in held.items()
        if part != "bias" or module in whole
    )
    return Trained(loras, any("magnitude_vector" in held for held in parts.values()), whole, tensors, added)


def _lora(held: dict[str, list[int]]) -> Lora | None:
    a, b = held.get("A", held.get("embedding_A")), held.get("B", held.get("embedding_B"))
    return Lora(a[0], a[-1], b[0]) if a and b else None


def left_out(trained: Trained, shapes: Shapes) -> dict[str, tuple[set[str], int]]:
    """By the reason: the last parts of the modules' names, and numbers of the base in them."""
    found: dict[str, tuple[set[str], int]] = {}
    for module, why in trained.left_out.items():
        names, numbers = found.get(why, (set(), 0))
        shape = shapes.get(f"{module}.weight") or shapes[module]
        found[why] = (names | {module.rpartition(".")[2]}, numbers + math.prod(shape))
    return dict(sorted(found.items()))


def by_kind(trained: Trained) -> dict[str, tuple[int, int]]:
    """Modules and numbers, by the last part of the modules' names: what people call them."""
    kinds: dict[str, tuple[int, int]] = {}
    for module, sizes in trained.tensors.items():
        kind = module.rpartition(".")[2]
        modules, numbers = kinds.get(kind, (0, 0))
        kinds[kind] = (modules + 1, numbers + sum(sizes))
    return dict(sorted(kinds.items()))
