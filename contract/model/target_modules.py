"""Decides which modules of a base model get an adapter, in the same way for POST, plans, the trainer, merging and
start_from."""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from contract.expression import full_matches
from contract.failure import FailureCode, InputError
from contract.formatting import format_value, truncate
from contract.model.stacked_experts import expert_parameters, is_routed_expert
from contract.recipe import CHANGES_BASE, Adapter

_PARAM = "adapter.target_modules"

EXPERT_SKIPPED = "routed experts are not adapted unless adapter.experts is true"
ROUTER_SKIPPED = "routers of experts are not adapted; adapter.modules_to_save trains them whole"
MEDIA_SKIPPED = "parts for images and sound are not adapted, since text never trains them"
PEFT_UNSUPPORTED = "PEFT cannot adapt this module of this architecture"
NAME_TAKEN = "dense modules and shared experts are not adapted where PEFT takes their names for those of routed experts"

_ROUTERS = {"gate", "router", "shared_expert_gate"}
_FOR_OTHER_MEDIA = {
    "audio_tower",
    "connector",
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
"""Linear modules of text models outside the numbered layers; any other module there is an embedding or a head."""
_CANNOT = {kind: {"out_proj"} for kind in ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")} | {
    "deepseek_v4": {"o_a_proj"},  # has a matrix for each group of heads
    "laguna": {"shared_experts"},  # is renamed to something else when the adapter is loaded
    "longcat_flash": {"experts"},  # has more experts in one matrix than in the other
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
"""By model type: PEFT 0.21 replaces these names, wherever they occur, by the parameters of routed experts
(peft.utils.transformers_weight_conversion)."""


@dataclass(frozen=True)
class Targets:
    adapted: set[str]
    """Names of the modules that get an adapter."""
    skipped: dict[str, str]
    """Modules that match the recipe's names but get no adapter, with the reason."""
    experts: frozenset[str] = frozenset()
    """Names of the parameters that get an adapter: each has all routed experts of a layer."""


def target_modules(adapter: Adapter, shapes: dict[str, list[int]], kind: str) -> Targets:
    """The modules and the parameters of routed experts that get LoRA. `shapes` are by the names of the loaded model
    (loaded_names.py); `kind` is its model_type.

    Each name in a list matches a module's last parts, as in PEFT: "q_proj", "self_attn.q_proj". A string is
    "all-linear" or a regular expression for complete names. Raises InputError for a name that matches nothing that can
    be adapted; the message lists what can be.
    """
    parameters = {name.removesuffix(".weight"): name for name in expert_parameters(shapes)}
    modules = _modules(shapes, dimensions=2) | parameters.keys()
    why = {module: reason for module in modules if (reason := _skip_reason(module, kind)) is not None}
    # Those of one expert alone, which transformers stacks in all architectures that it has.
    why |= {module: PEFT_UNSUPPORTED for module in modules - parameters.keys() - why.keys() if is_routed_expert(module)}
    experts = parameters.keys() - why.keys()
    matches = list(_matches(adapter.target_modules, modules, why.keys()))
    wanted = _wanted_experts(adapter, experts, [found for _, found in matches])
    why |= dict.fromkeys(experts - wanted, EXPERT_SKIPPED)
    if adapter.experts is True and not wanted:
        raise _no_experts(sorted({why[module] for module in parameters}))
    matched = set(wanted)
    for given, found in matches:
        _check_any_adaptable(found, why, given)
        matched |= found
    # As in PEFT, a module that is trained whole needs no adapter.
    saved = _named("adapter.modules_to_save", adapter.modules_to_save, _modules(shapes))
    adapted = matched - why.keys() - saved
    return Targets(
        adapted=adapted - wanted,
        skipped={module: why[module] for module in sorted(matched & why.keys() - saved)},
        experts=frozenset(parameters[module] for module in adapted & wanted),
    )


def check_adapter(adapter: Adapter, shapes: dict[str, list[int]], kind: str) -> Targets:
    """As target_modules. Also raises InputError for other names that match no module, for a rank that is too high, and
    for what routed experts cannot have."""
    targets = target_modules(adapter, shapes, kind)
    adapted = targets.adapted | {name.removesuffix(".weight") for name in targets.experts}
    _named("adapter.rank_pattern", adapter.rank_pattern, adapted)
    _named("adapter.alpha_pattern", adapter.alpha_pattern, adapted)
    if targets.experts:
        _check_plain(adapter)
    if adapter.init in CHANGES_BASE | {"loftq"}:
        for module in sorted(targets.adapted):
            _check_rank(adapter, module, min(shapes[f"{module}.weight"]))
    return targets


def describe_skipped(targets: Targets) -> list[str]:
    """For people: names that match but get no adapter, grouped by the reason."""
    by_reason: dict[str, set[str]] = {}
    for module, reason in targets.skipped.items():
        by_reason.setdefault(reason, set()).add(_last(module))
    return [f"{_PARAM}: {reason}: {', '.join(sorted(names))}" for reason, names in sorted(by_reason.items())]


def suffixes(module: str) -> Iterator[str]:
    """The last part of the name, the last two parts, and so on."""
    ending = module
    while ending:
        yield ending
        ending = ending.partition(".")[2]


def is_router(module: str) -> bool:
    return not _ROUTERS.isdisjoint(module.split("."))


def _skip_reason(module: str, kind: str) -> str | None:
    parts = set(module.split("."))
    if parts & _FOR_OTHER_MEDIA:
        return MEDIA_SKIPPED
    if is_router(module):
        return ROUTER_SKIPPED
    if parts & _CANNOT.get(kind, set()):
        return PEFT_UNSUPPORTED
    taken = _last(module) in TAKEN_NAMES.get(kind, ()) and not is_routed_expert(module)
    return NAME_TAKEN if taken else None


def _is_linear(module: str) -> bool:
    """True for modules in numbered layers. Embeddings and the output head are outside these."""
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


def _matches(given: str | list[str], modules: Set[str], cannot: Set[str]) -> Iterator[tuple[str, set[str]]]:
    """What each of the recipe's names matches."""
    if given == "all-linear":
        yield given, {module for module in modules if _is_linear(module) or module in cannot}
    elif isinstance(given, str):
        yield given, _by_expression(given, modules, cannot)
    else:
        by_ending = _by_ending(modules)
        for name in given:
            yield name, _by_name(_PARAM, name, by_ending, modules - cannot)


def _wanted_experts(adapter: Adapter, experts: Set[str], matches: list[set[str]]) -> set[str]:
    """With "auto", those that are matched by what matches nothing else."""
    if adapter.experts == "auto":
        return set().union(*(found for found in matches if found <= experts))
    return set(experts) if adapter.experts else set()


def _named(param: str, names: Iterable[str], modules: Set[str]) -> set[str]:
    """Modules whose last parts are one of `names`. Raises InputError for a name that matches none."""
    by_ending = _by_ending(modules)
    return set().union(*(_by_name(param, name, by_ending, modules) for name in names))


def _by_ending(modules: Set[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module in modules:
        for ending in suffixes(module):
            found.setdefault(ending, set()).add(module)
    return found


def _by_name(param: str, name: str, by_ending: dict[str, set[str]], candidates: Set[str]) -> set[str]:
    if name not in by_ending:
        raise _unmatched(param, f"{format_value(name)} matches no module of the model", candidates)
    return by_ending[name]


def _by_expression(expression: str, modules: Set[str], cannot: Set[str]) -> set[str]:
    matched = set(full_matches(_PARAM, expression, frozenset(modules)))
    if not matched:
        example = next((module for module in sorted(modules - cannot) if _in_a_layer(module)), "")
        given = f"{format_value(expression)}, a regular expression for whole names such as {truncate(example)},"
        raise _unmatched(_PARAM, f"{given} matches no module of the model", modules - cannot)
    return matched


def _check_any_adaptable(matched: set[str], why: dict[str, str], given: str) -> None:
    """Raises InputError if nothing that a name matches can be adapted."""
    if matched <= why.keys():
        reasons = sorted({why[module] for module in matched})
        message = f"{_PARAM}: {format_value(given)} matches nothing that can be adapted"
        raise InputError(FailureCode.TARGET_MODULES_UNMATCHED, "; ".join([message, *reasons]), _PARAM)


def _no_experts(reasons: list[str]) -> InputError:
    param = "adapter.experts"
    message = f"{param}: got true; {'; '.join(reasons) or 'the model has no routed experts'}; leave it out"
    return InputError(FailureCode.TARGET_MODULES_UNMATCHED, message, param)


def _unmatched(param: str, problem: str, modules: Set[str]) -> InputError:
    candidates = sorted({_last(module) for module in modules if _in_a_layer(module)})
    return InputError(
        FailureCode.TARGET_MODULES_UNMATCHED, f"{param}: {problem}; it has {', '.join(candidates)}", param
    )


def _check_plain(adapter: Adapter) -> None:
    """Raises InputError for what PEFT cannot do on a parameter."""
    plain = {"dropout": 0, "dora": False}
    refused = next((name for name, value in plain.items() if getattr(adapter, name) != value), None)
    if refused is None and adapter.init in CHANGES_BASE:
        refused = "init"
    if refused is not None:
        param = f"adapter.{refused}"
        message = (
            f"{param}: got {format_value(getattr(adapter, refused))}, which PEFT does not support for routed experts; "
            "leave it out, or set adapter.experts to false"
        )
        raise InputError(FailureCode.RECIPE_INVALID, message, param)


def _check_rank(adapter: Adapter, module: str, full: int) -> None:
    pattern = next((name for name in adapter.rank_pattern if name in suffixes(module)), None)
    param, rank = (
        ("adapter.r", adapter.r) if pattern is None else ("adapter.rank_pattern", adapter.rank_pattern[pattern])
    )
    if rank > full:
        message = (
            f"{param}: got {rank}; adapter.init {format_value(adapter.init)} has {full} parts of {truncate(module)} "
            "to start from"
        )
        raise InputError(FailureCode.RECIPE_INVALID, message, param)
