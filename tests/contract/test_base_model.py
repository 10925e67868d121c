import json
from pathlib import Path

import pytest

from contract.base_model import check_target_modules, weight_shapes
from contract.failure import FailureReason, InputError


def write(folder: Path, header: object, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + text)


def test_the_shapes_are_read_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"__metadata__": {"format": "pt"}, "a.weight": {"dtype": "F32", "shape": [2, 3]}})
    assert weight_shapes(tmp_path) == {"a.weight": [2, 3]}


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
