import json
from pathlib import Path
from typing import Any

import pytest

from contract.base_model import check_adapter, check_target_modules, weight_shapes
from contract.failure import FailureReason, InputError
from contract.recipe import Adapter


def write(folder: Path, header: object, length: int | None = None) -> None:
    (folder / "config.json").write_text("{}")
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + text)


OFFSETS = {"data_offsets": [0, 0]}


def test_the_shapes_are_read_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [0, 3], **OFFSETS}})
    assert weight_shapes(tmp_path) == {"a.weight": [0, 3]}


@pytest.mark.parametrize(
    "header",
    [
        [],
        3,
        None,
        {"a.weight": 3},
        {"a.weight": []},
        {"a.weight": {}},
        {"a.weight": {"shape": 3}},
        {"a.weight": {"shape": ["x"]}},
        {"a.weight": {"shape": [1], **OFFSETS}},
        {"a.weight": {"shape": [1], "dtype": "F32"}},
        {"a.weight": {"shape": [1], "dtype": "F32", "data_offsets": [0, "x"]}},
        b"[" * 100_000,
        b"9" * 5_000,
        b"\xff",
        b"",
    ],
)
def test_a_header_that_is_none_is_refused(tmp_path: Path, header: object) -> None:
    write(tmp_path, header)
    with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file") as caught:
        weight_shapes(tmp_path)
    assert caught.value.failure.reason == FailureReason.MODEL_UNSUPPORTED


def test_a_header_longer_than_the_format_allows_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, b"{}", length=2**63)
    with pytest.raises(InputError, match="a header of"):
        weight_shapes(tmp_path)


SHAPES = {
    "model.embed_tokens.weight": [8, 2],
    "model.layers.0.self_attn.q_proj.weight": [2, 2],
    "model.layers.0.norm.weight": [2],
}


@pytest.mark.parametrize("target", ["q_proj", "self_attn.q_proj", "model.layers.0.self_attn.q_proj", "embed_tokens"])
def test_a_module_is_named_by_its_last_parts(target: str) -> None:
    check_target_modules([target], SHAPES)


@pytest.mark.parametrize("target", ["proj", "q_proj.weight", "norm", "layers", ""])
def test_a_name_that_matches_nothing_is_told_what_would(target: str) -> None:
    with pytest.raises(InputError, match="it has q_proj"):
        check_target_modules([target], SHAPES)


def test_a_long_name_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        check_target_modules(["x" * 4096], SHAPES)
    assert len(caught.value.failure.message) < 300


@pytest.mark.parametrize("expression", [r".*\.q_proj", r"model\.layers\.\d+\..*", r".*(q|k)_proj"])
def test_a_string_is_a_regular_expression_for_whole_names(expression: str) -> None:
    assert check_target_modules(expression, SHAPES) == {"model.layers.0.self_attn.q_proj"}


@pytest.mark.parametrize("expression", ["q_proj", ".*q", "All-Linear"])
def test_an_expression_that_matches_no_whole_name_is_shown_one(expression: str) -> None:
    with pytest.raises(InputError, match=r"such as model\.layers\.0\.self_attn\.q_proj, .*it has q_proj"):
        check_target_modules(expression, SHAPES)


def test_an_expression_matches_the_loaded_models_names_where_the_file_leaves_the_backbones_out() -> None:
    assert check_target_modules(r"transformer\.h\..*c_attn", {"h.0.attn.c_attn.weight": [2, 6]}) == {"h.0.attn.c_attn"}


def test_an_expression_that_would_take_for_ever_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.expression._SECONDS", 0.3)
    with pytest.raises(InputError, match="takes too long"):
        check_target_modules("(.+)+!", {f"model.layers.0.{'a' * 60}.weight": [2, 2]})


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
def test_what_the_model_has_not_is_told_by_its_field(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InputError, match="q_proj") as caught:
        check_adapter(Adapter(**fields), SHAPES)
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
def test_what_the_model_has_is_accepted(fields: dict[str, Any]) -> None:
    check_adapter(Adapter(**fields), SHAPES)
