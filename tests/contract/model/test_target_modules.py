"""What a recipe's names match in a model, by its weights' shapes alone."""

from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from contract.model.target_modules import (
    EXPERT_SKIPPED,
    MEDIA_SKIPPED,
    NAME_TAKEN,
    PEFT_UNSUPPORTED,
    ROUTER_SKIPPED,
    check_adapter,
    describe_skipped,
    target_modules,
)
from contract.recipe import Adapter

SHAPES = {
    "model.embed_tokens.weight": [8, 2],
    "model.layers.0.self_attn.q_proj.weight": [2, 2],
    "model.layers.0.norm.weight": [2],
}


def adapted(targets: str | list[str], shapes: dict[str, list[int]], kind: str = "llama") -> set[str]:
    return target_modules(Adapter(target_modules=targets), shapes, kind).adapted


@pytest.mark.parametrize("target", ["q_proj", "self_attn.q_proj", "model.layers.0.self_attn.q_proj", "embed_tokens"])
def test_module_is_named_by_its_last_parts(target: str) -> None:
    adapted([target], SHAPES)


@pytest.mark.parametrize("target", ["proj", "q_proj.weight", "norm", "layers"])
def test_name_that_matches_nothing_is_told_what_would(target: str) -> None:
    with pytest.raises(InputError, match="it has q_proj"):
        adapted([target], SHAPES)


def test_long_name_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        adapted(["x" * 4096], SHAPES)
    assert len(caught.value.failure.message) < 300


@pytest.mark.parametrize("expression", [r".*\.q_proj", r"model\.layers\.\d+\..*", r".*(q|k)_proj"])
def test_string_is_a_regular_expression_for_whole_names(expression: str) -> None:
    assert adapted(expression, SHAPES) == {"model.layers.0.self_attn.q_proj"}


@pytest.mark.parametrize("expression", ["q_proj", ".*q", "All-Linear"])
def test_unmatched_expression_is_answered_with_an_example(expression: str) -> None:
    with pytest.raises(InputError, match=r"such as model\.layers\.0\.self_attn\.q_proj, .*it has q_proj"):
        adapted(expression, SHAPES)


def test_expression_that_would_take_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.expression._SECONDS", 0.3)
    with pytest.raises(InputError, match="takes too long"):
        adapted("(.+)+!", {f"model.layers.0.{'a' * 60}.weight": [2, 2]})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"modules_to_save": ["lm_head"]}, "adapter.modules_to_save"),
        ({"target_modules": ".*k_proj"}, "adapter.target_modules"),
        ({"rank_pattern": {"k_proj": 2}}, "adapter.rank_pattern"),
        ({"alpha_pattern": {"embed_tokens": 2}}, "adapter.alpha_pattern"),
        ({"init": "pissa", "r": 3}, "adapter.r"),
        ({"init": "loftq", "r": 3}, "adapter.r"),
        ({"init": "olora", "r": 1, "rank_pattern": {"q_proj": 3}}, "adapter.rank_pattern"),
    ],
)
def test_unknown_module_is_refused_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InputError, match="q_proj") as caught:
        check_adapter(Adapter(**fields), SHAPES, "llama")
    assert caught.value.failure.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"r": 3},
        {"modules_to_save": ["embed_tokens", "norm"]},
        {"rank_pattern": {"q_proj": 1}, "alpha_pattern": {"self_attn.q_proj": 3.5}},
        {"init": "pissa", "r": 3, "rank_pattern": {"q_proj": 2}},
    ],
)
def test_known_module_is_accepted(fields: dict[str, Any]) -> None:
    check_adapter(Adapter(**fields), SHAPES, "llama")


Q = "model.layers.0.self_attn.q_proj"
MLP = "model.layers.0.mlp"
MIXTURE = {
    f"{Q}.weight": [2, 2],
    f"{MLP}.gate.weight": [4, 2],
    f"{MLP}.shared_expert_gate.weight": [1, 2],
    f"{MLP}.shared_expert.up_proj.weight": [2, 2],
    f"{MLP}.experts.up_proj": [4, 2, 2],
    f"{MLP}.experts.down_proj": [4, 2, 2],
}
STACKED = {f"{Q}.weight": [2, 2], f"{MLP}.experts.gate_up_proj": [4, 2, 2], f"{MLP}.input_linear.weight": [4, 2, 2]}
VISION = {
    f"{Q}.weight": [2, 2],
    "model.vision_tower.layers.0.self_attn.q_proj.weight": [2, 2],
    "model.vision_tower.layers.0.mlp.fc1.weight": [2, 2],
}
MAMBA_LAYER = {"model.layers.0.mixer.in_proj.weight": [2, 2], "model.layers.0.mixer.out_proj.weight": [2, 2]}


@pytest.mark.parametrize(
    ("shapes", "kind", "expected", "reasons"),
    [
        (MIXTURE, "qwen2_moe", {Q, f"{MLP}.shared_expert.up_proj"}, {EXPERT_SKIPPED, ROUTER_SKIPPED}),
        (MIXTURE, "qwen3_next", {Q}, {EXPERT_SKIPPED, ROUTER_SKIPPED, NAME_TAKEN}),
        (STACKED, "gpt_oss", {Q}, {EXPERT_SKIPPED}),
        (VISION, "gemma3", {Q}, {MEDIA_SKIPPED}),
        (MAMBA_LAYER, "falcon_mamba", {"model.layers.0.mixer.in_proj"}, {PEFT_UNSUPPORTED}),
        (MAMBA_LAYER, "jamba", {"model.layers.0.mixer.in_proj", "model.layers.0.mixer.out_proj"}, set()),
        ({"model.per_layer_model_projection.weight": [2, 2]}, "gemma4", {"model.per_layer_model_projection"}, set()),
    ],
)
def test_all_linear_skips_unsupported_modules_with_reasons(
    shapes: dict[str, list[int]], kind: str, expected: set[str], reasons: set[str]
) -> None:
    targets = target_modules(Adapter(), shapes, kind)
    assert targets.adapted == expected
    assert set(targets.skipped.values()) == reasons
    assert len(describe_skipped(targets)) == len(reasons)
    assert targets.adapted | targets.skipped.keys() == {name.removesuffix(".weight") for name in shapes}


@pytest.mark.parametrize(
    ("target", "shapes", "kind", "reason"),
    [
        ("gate", MIXTURE, "qwen2_moe", ROUTER_SKIPPED),
        ("up_proj", MIXTURE, "qwen3_next", NAME_TAKEN),
        ("fc1", VISION, "gemma3", MEDIA_SKIPPED),
        ("out_proj", MAMBA_LAYER, "mamba2", PEFT_UNSUPPORTED),
        ("experts.0.w1", {f"{MLP}.experts.0.w1.weight": [2, 2]}, "mixtral", PEFT_UNSUPPORTED),
        ("gate_up_proj", {f"{MLP}.experts.gate_up_proj": [4, 2, 2]}, "longcat_flash", PEFT_UNSUPPORTED),
    ],
)
def test_name_matching_only_skipped_modules_is_refused(
    target: str, shapes: dict[str, list[int]], kind: str, reason: str
) -> None:
    given: Any = target if target == "all-linear" or "*" in target else [target]
    with pytest.raises(InputError, match=reason) as caught:
        target_modules(Adapter(target_modules=given), shapes, kind)
    assert caught.value.failure.code == FailureCode.TARGET_MODULES_UNMATCHED


def test_name_matching_experts_adapts_other_modules() -> None:
    assert adapted(["up_proj"], MIXTURE, "qwen2_moe") == {f"{MLP}.shared_expert.up_proj"}
    assert adapted(["q_proj"], VISION, "gemma3") == {Q}


EXPERTS = {f"{MLP}.experts.gate_up_proj", f"{MLP}.input_linear.weight"}


@pytest.mark.parametrize(
    ("targets", "experts", "modules", "parameters"),
    [
        ("all-linear", "auto", {Q}, set()),
        ("all-linear", False, {Q}, set()),
        ("all-linear", True, {Q}, EXPERTS),
        (["q_proj"], True, {Q}, EXPERTS),
        (["q_proj", "experts.gate_up_proj"], "auto", {Q}, {f"{MLP}.experts.gate_up_proj"}),
        (["input_linear"], "auto", set(), {f"{MLP}.input_linear.weight"}),
        (r".*gate_up_proj", "auto", set(), {f"{MLP}.experts.gate_up_proj"}),
        (r".*(gate_up|q)_proj", "auto", {Q}, set()),
        (r".*(gate_up|q)_proj", True, {Q}, EXPERTS),
    ],
)
def test_experts_are_adapted_where_wanted(targets: Any, experts: Any, modules: set[str], parameters: set[str]) -> None:
    found = target_modules(Adapter(target_modules=targets, experts=experts), STACKED, "gpt_oss")
    assert found.adapted == modules
    assert found.experts == parameters


def test_model_of_experts_alone_adapts_them() -> None:
    alone = {f"{MLP}.experts.down_proj": [4, 2, 2]}
    assert target_modules(Adapter(), alone, "gpt_oss").experts == alone.keys()


def test_order_of_names_decides_nothing() -> None:
    names = ["up_proj", "experts.up_proj"]
    for given in (names, names[::-1]):
        found = target_modules(Adapter(target_modules=given), MIXTURE, "qwen2_moe")
        assert found.adapted == {f"{MLP}.shared_expert.up_proj"}
        assert found.experts == {f"{MLP}.experts.up_proj"}


@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3_moe"])
def test_excluded_experts_are_refused_by_name(kind: str) -> None:
    with pytest.raises(InputError, match=EXPERT_SKIPPED):
        target_modules(Adapter(target_modules=["gate_up_proj"], experts=False), STACKED, kind)


@pytest.mark.parametrize(("shapes", "kind"), [(SHAPES, "llama"), (STACKED, "longcat_flash")])
def test_experts_of_unfit_models_are_refused(shapes: dict[str, list[int]], kind: str) -> None:
    unfit = shapes if kind == "llama" else {f"{MLP}.experts.down_proj": [4, 2, 2]} | SHAPES
    with pytest.raises(InputError) as caught:
        check_adapter(Adapter(experts=True), unfit, kind)
    assert caught.value.failure.param == "adapter.experts"


@pytest.mark.parametrize("fields", [{"dropout": 0.1}, {"dora": True}, {"init": "pissa"}, {"init": "olora"}])
def test_experts_refuse_what_peft_cannot_do(fields: dict[str, Any]) -> None:
    check_adapter(Adapter(r=1, **fields), STACKED, "gpt_oss")
    with pytest.raises(InputError, match="routed experts") as caught:
        check_adapter(Adapter(r=1, experts=True, **fields), STACKED, "gpt_oss")
    assert caught.value.failure.param == f"adapter.{next(iter(fields))}"


def test_patterns_name_expert_parameters() -> None:
    check_adapter(
        Adapter(experts=True, rank_pattern={"gate_up_proj": 2}, alpha_pattern={"input_linear": 3}), STACKED, "x"
    )
