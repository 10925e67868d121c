"""How many parameters a recipe trains, by module: exactly as many as PEFT."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contract.model.earlier_adapter import WEIGHTS
from contract.model.embeddings import is_embedding
from contract.model.folder import tensor_shapes
from contract.model.loaded_names import Shapes, model_type
from contract.model.stacked_experts import adapted_parameter
from contract.model.target_modules import suffixes, target_modules
from contract.recipe import Adapter
from estimate.architecture import is_transposed

_EARLIER = "base_model.model."


@dataclass(frozen=True)
class LoraShape:
    rank: int
    in_features: int
    """Size of the module's input per token."""
    out_features: int
    """Size of its output per token."""
    experts: int = 1
    """Number of routed experts, each of which has its own A and B."""


@dataclass(frozen=True)
class TrainedParameters:
    """The trained parameters, by module."""

    loras: dict[str, LoraShape] = field(default_factory=dict)
    """LoRA of each adapted module."""
    magnitudes: bool = False
    """True with DoRA."""
    whole: frozenset[str] = frozenset()
    """Modules that are trained whole."""
    tensors: dict[str, list[int]] = field(default_factory=dict)
    """Number of elements of each trained tensor."""
    added: int = 0
    """Number of trained elements that the base model does not have: all except biases."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Modules that target_modules matches but that are not adapted, with the reason."""

    @property
    def parameters(self) -> int:
        return sum(map(sum, self.tensors.values()))


def trained_parameters(
    adapter: Adapter, shapes: Shapes, config: dict[str, Any], earlier: Path | None
) -> TrainedParameters:
    """`shapes` come from contract.model.loaded_names, and `earlier` is the folder of adapter.start_from. The adapter is
    already checked (target_modules.check_adapter). Raises OSError or ValueError for a damaged earlier adapter.

    A LoRA of rank r has r (in + out) parameters (Hu et al. 2021, arXiv:2106.09685); DoRA has one more per output (Liu
    et al. 2024, arXiv:2402.09353).
    """
    if earlier is not None:
        return _of_earlier_adapter(tensor_shapes(earlier / WEIGHTS), shapes)
    modules = {name.rpartition(".")[0] for name in shapes}
    # As in PEFT: by the end of the name, ignoring its parts.
    whole = frozenset(module for module in modules if module.endswith(tuple(adapter.modules_to_save)))
    targets = target_modules(adapter, shapes, model_type(config))
    loras = {
        module: LoraShape(_rank(adapter, module), *_sizes(module, shapes[f"{module}.weight"], config))
        for module in sorted(targets.adapted)
    }
    for name in sorted(targets.experts):
        module = name.removesuffix(".weight")
        experts, *sizes = shapes[name]
        loras[module] = LoraShape(_rank(adapter, module), sizes[-1], sizes[0], experts)
    tensors = {module: _elements(lora, adapter.dora) for module, lora in loras.items()}
    for name, shape in shapes.items():
        if name.rpartition(".")[0] in whole:
            tensors.setdefault(name.rpartition(".")[0], []).append(math.prod(shape))
    added = sum(map(sum, tensors.values()))
    for name in _biases(adapter, shapes, targets.adapted):
        if name.rpartition(".")[0] not in whole:
            tensors.setdefault(name.rpartition(".")[0], []).append(math.prod(shapes[name]))
    return TrainedParameters(loras, adapter.dora, whole, tensors, added, targets.skipped)


def _rank(adapter: Adapter, module: str) -> int:
    """As in PEFT: the first pattern that the module's name ends with."""
    ends = set(suffixes(module))
    return next((rank for name, rank in adapter.rank_pattern.items() if name in ends), adapter.r)


def _sizes(module: str, shape: list[int], config: dict[str, Any]) -> tuple[int, int]:
    """Input and output size."""
    first, second = shape
    return (first, second) if is_embedding(module) or is_transposed(module, config) else (second, first)


def _elements(lora: LoraShape, dora: bool) -> list[int]:
    """Elements of A, B and the magnitudes."""
    rank = lora.experts * lora.rank
    return [rank * lora.in_features, rank * lora.out_features, *([lora.out_features] if dora else [])]


def _biases(adapter: Adapter, shapes: Shapes, adapted: set[str]) -> list[str]:
    match adapter.bias:
        case "all":
            return [name for name in shapes if "bias" in name]
        case "lora_only":
            return [name for name in shapes if name.endswith(".bias") and name.removesuffix(".bias") in adapted]
    return []


def _of_earlier_adapter(earlier: Shapes, base: Shapes) -> TrainedParameters:
    """Everything in an adapter's file is trained further. All of it is added to the base, except biases."""
    parts: dict[str, dict[str, list[int]]] = {}
    for name, shape in earlier.items():
        plain = name.removeprefix(_EARLIER)
        module, lora, part = plain.partition(".lora_")
        if not lora:
            module, _, part = plain.rpartition(".")
        parts.setdefault(module, {})[part.removesuffix(".weight")] = shape
    parts = {_adapted(module, tensors_of, base): tensors_of for module, tensors_of in parts.items()}
    loras = {
        module: found for module, tensors_of in parts.items() if (found := _lora(module, tensors_of, base)) is not None
    }
    whole = frozenset(module for module, tensors_of in parts.items() if "weight" in tensors_of)
    tensors = {module: [math.prod(shape) for shape in tensors_of.values()] for module, tensors_of in parts.items()}
    added = sum(
        math.prod(shape)
        for module, tensors_of in parts.items()
        for part, shape in tensors_of.items()
        if part != "bias" or module in whole
    )
    return TrainedParameters(
        loras, any("magnitude_vector" in tensors_of for tensors_of in parts.values()), whole, tensors, added
    )


def _adapted(module: str, tensors_of: dict[str, list[int]], base: Shapes) -> str:
    if not {"A", "B"} <= tensors_of.keys():
        return module
    parameter = adapted_parameter(module, tensors_of["A"], tensors_of["B"], base)
    return parameter.removesuffix(".weight") if parameter else module


def _lora(module: str, tensors_of: dict[str, list[int]], base: Shapes) -> LoraShape | None:
    a, b = tensors_of.get("A", tensors_of.get("embedding_A")), tensors_of.get("B", tensors_of.get("embedding_B"))
    if not a or not b:
        return None
    weight = base.get(module, base.get(f"{module}.weight", []))
    experts = weight[0] if len(weight) == 3 else 1
    return LoraShape(a[0] // experts, a[-1], b[0], experts)


def skipped_modules(trained_parameters: TrainedParameters, shapes: Shapes) -> dict[str, tuple[set[str], int]]:
    """By reason: the last parts of the modules' names, and the number of base parameters in them."""
    found: dict[str, tuple[set[str], int]] = {}
    for module, why in trained_parameters.skipped.items():
        names, numbers = found.get(why, (set(), 0))
        shape = shapes.get(f"{module}.weight") or shapes[module]
        found[why] = (names | {module.rpartition(".")[2]}, numbers + math.prod(shape))
    return dict(sorted(found.items()))
