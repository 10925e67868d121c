"""Decides which modules of a base model get an adapter: for POST, plan, trainer, merge and start_from alike."""

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from contract.expression import full_matches
from contract.failure import FailureCode, InputError
from contract.quote import cut, quote
from contract.recipe import CHANGES_BASE, Adapter

_PARAM = "adapter.target_modules"

EXPERT = "routed experts are not adapted"
ROUTER = "routers of experts are not adapted"
UNREACHED = "parts for images and sound are not adapted, since text never trains them"
CANNOT = "PEFT cannot adapt this module of this architecture"
TAKEN = "dense modules and shared experts are not adapted where PEFT takes their names for those of routed experts"

_ROUTERS = {"gate", "router", "shared_expert_gate"}
_FOR_OTHER_MEDIA = {
    "audio_tower",
    "embed_audio",
    "embed_tokens_extend",
    "embed_vision",
    "image_encoder",
    "multi_modal_projector",
    "vision_embed_tokens",
    "vision_model",
    "vision_tower",
    "visual",
    "visual_projection",
    "vqmodel",
}
_STACKED_EXPERTS = re.compile(r".*\.(input|output)_linear")  # JetMoE's and Granite's, [experts, out, in]
_OUTSIDE_LAYERS = {
    "dense",
    "embedding_hidden_mapping_in",
    "input_mix_weight_down",
    "input_mix_weight_up",
    "map_inputs_layer",
    "per_layer_model_projection",
    "pooler",
    "project_in",
    "project_out",
}
"""Linear modules of text models that are in no numbered layer; what else is there is an embedding or a head."""
_CANNOT = {kind: {"out_proj"} for kind in ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")} | {
    "deepseek_v4": {"o_a_proj"},  # has a matrix for each group of heads
    "laguna": {"shared_experts"},  # renamed to something else when the adapter is loaded
}
_LIKE_MIXTRAL = {"minimax", "minimax_m2", "mixtral"}
_LIKE_QWEN = {
    *("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe"),
    *("exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash"),
    *("mellum", "olmoe", "qwen3_moe", "qwen3_next", "solar_open"),
}
TAKEN_NAMES = {kind: {"gate", "w1", "w2", "w3"} for kind in _LIKE_MIXTRAL} | {
    kind: {"gate", "gate_proj", "up_proj", "down_proj"} for kind in _LIKE_QWEN
}
"""By model type: PEFT 0.21 replaces these names, wherever they stand, by the parameters of routed experts
(peft.utils.transformers_weight_conversion)."""


@dataclass(frozen=True)
class Targets:
    adapted: set[str]
    """Names of modules."""
    left_out: dict[str, str]
    """Modules that the recipe's names match too, and why they get no adapter."""


def target_modules(adapter: Adapter, shapes: dict[str, list[int]], kind: str) -> Targets:
    """The modules that get LoRA. `shapes` are by the names of the loaded model (loaded_names.py), `kind` is its
    model_type.

    A name of several matches a module's last parts, as in PEFT: "q_proj", "self_attn.q_proj". A string is "all-linear",
    or a regular expression for whole names. Raises InputError for what matches nothing that can be adapted; lists what
    would.
    """
    modules = _modules(shapes, dimensions=2) | set(_stacked(shapes))
    why = {module: reason for module in modules if (reason := _why_not(module, kind)) is not None}
    given = adapter.target_modules
    if given == "all-linear":
        matched = {module for module in modules if _is_linear(module) or module in why}
        _check_some(matched, why, "all-linear")
    elif isinstance(given, str):
        matched = _by_expression(given, modules, why)
    else:
        matched = _named(_PARAM, given, modules, why)
    # As in PEFT: what is trained whole needs no adapter.
    saved = _named("adapter.modules_to_save", adapter.modules_to_save, _modules(shapes))
    return Targets(
        adapted=matched - why.keys() - saved,
        left_out={module: why[module] for module in sorted(matched & why.keys() - saved)},
    )


def check_adapter(adapter: Adapter, shapes: dict[str, list[int]], kind: str) -> Targets:
    """As target_modules; raises InputError also for other names that are no module's, and for too high a rank."""
    targets = target_modules(adapter, shapes, kind)
    _named("adapter.rank_pattern", adapter.rank_pattern, targets.adapted)
    _named("adapter.alpha_pattern", adapter.alpha_pattern, targets.adapted)
    if adapter.init in CHANGES_BASE | {"loftq"}:
        for module in sorted(targets.adapted):
            _check_rank(adapter, module, min(shapes[f"{module}.weight"]))
    return targets


def left_out_words(targets: Targets) -> list[str]:
    """For people: what the recipe's names match and what gets no adapter, by the reason."""
    by_reason: dict[str, set[str]] = {}
    for module, reason in targets.left_out.items():
        by_reason.setdefault(reason, set()).add(_last(module))
    return [f"{_PARAM}: {reason}: {', '.join(sorted(names))}" for reason, names in sorted(by_reason.items())]


def endings(module: str) -> Iterator[str]:
    """Its last part, its last two parts, and so on."""
    ending = module
    while ending:
        yield ending
        ending = ending.partition(".")[2]


def is_routed_expert(module: str) -> bool:
    return "experts" in module.split(".") or _STACKED_EXPERTS.fullmatch(module) is not None


def _why_not(module: str, kind: str) -> str | None:
    parts = set(module.split("."))
    if parts & _FOR_OTHER_MEDIA:
        return UNREACHED
    if parts & _ROUTERS:
        return ROUTER
    if is_routed_expert(module):
        return EXPERT
    if parts & _CANNOT.get(kind, set()):
        return CANNOT
    return TAKEN if _last(module) in TAKEN_NAMES.get(kind, ()) else None


def _stacked(shapes: dict[str, list[int]]) -> Iterator[str]:
    """Matrices of routed experts in one tensor: names of parameters, or of modules."""
    for name, shape in shapes.items():
        if len(shape) == 3 and is_routed_expert(module := name.removesuffix(".weight")):
            yield module


def _is_linear(module: str) -> bool:
    """Embeddings and the output head stand outside the numbered layers."""
    return _in_a_layer(module) or _last(module) in _OUTSIDE_LAYERS


def _in_a_layer(module: str) -> bool:
    return any(part.isdigit() for part in module.split("."))


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _modules(shapes: dict[str, list[int]], dimensions: int | None = None) -> set[str]:
    return {
        name.removesuffix(".weight")
        for name, shape in shapes.items()
        if name.endswith(".weight") and dimensions in (None, len(shape))
    }


def _named(param: str, names: Iterable[str], modules: Set[str], why: dict[str, str] | None = None) -> set[str]:
    """The modules whose last parts are one of `names`. Raises InputError for a name that is no module's, and for one
    that is only of modules which are left out."""
    by_ending: dict[str, set[str]] = {}
    for module in modules:
        for ending in endings(module):
            by_ending.setdefault(ending, set()).add(module)
    matched: set[str] = set()
    for name in names:
        if name not in by_ending:
            raise _unmatched(param, f"{quote(name)} matches no module of the model", modules - (why or {}).keys())
        _check_some(by_ending[name], why or {}, name)
        matched |= by_ending[name]
    return matched


def _by_expression(expression: str, modules: Set[str], why: dict[str, str]) -> set[str]:
    matched = set(full_matches(_PARAM, expression, frozenset(modules)))
    if not matched:
        example = next((module for module in sorted(modules - why.keys()) if _in_a_layer(module)), "")
        given = f"{quote(expression)}, a regular expression for whole names such as {cut(example)},"
        raise _unmatched(_PARAM, f"{given} matches no module of the model", modules - why.keys())
    _check_some(matched, why, expression)
    return matched


def _check_some(matched: set[str], why: dict[str, str], given: str) -> None:
    """Raises InputError where nothing of what a name matches can be adapted."""
    if matched <= why.keys():
        reasons = sorted({why[module] for module in matched})
        message = f"{_PARAM}: {quote(given)} matches nothing that can be adapted"
        raise InputError(FailureCode.TARGET_MODULES_UNMATCHED, "; ".join([message, *reasons]), _PARAM)


def _unmatched(param: str, problem: str, modules: Set[str]) -> InputError:
    candidates = sorted({_last(module) for module in modules if _in_a_layer(module)})
    return InputError(
        FailureCode.TARGET_MODULES_UNMATCHED, f"{param}: {problem}; it has {', '.join(candidates)}", param
    )


def _check_rank(adapter: Adapter, module: str, full: int) -> None:
    pattern = next((name for name in adapter.rank_pattern if name in endings(module)), None)
    param, rank = (
        ("adapter.r", adapter.r) if pattern is None else ("adapter.rank_pattern", adapter.rank_pattern[pattern])
    )
    if rank > full:
        message = (
            f"{param}: got {rank}; adapter.init {quote(adapter.init)} has {full} parts of {cut(module)} to start from"
        )
        raise InputError(FailureCode.RECIPE_INVALID, message, param)
