import json
from pathlib import Path

import pytest

from contract.failure import FailureCode, InputError
from contract.model.folder import weight_shapes


def write(folder: Path, header: object, length: int | None = None) -> None:
    (folder / "config.json").write_text("{}")
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(size.to_bytes(8, "little") + text)


OFFSETS = {"data_offsets": [0, 0]}


def test_shapes_are_read_by_name(tmp_path: Path) -> None:
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
def test_header_that_is_none_is_refused(tmp_path: Path, header: object) -> None:
    write(tmp_path, header)
    with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file") as caught:
        weight_shapes(tmp_path)
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    "places",
    [
        {"a.weight": (0, 8), "b.weight": (8, 12)},  # shorter than its shape
        {"a.weight": (0, 8), "b.weight": (8, 24)},  # longer
        {"a.weight": (0, 8), "b.weight": (4, 12)},  # overlapping
        {"a.weight": (0, 8), "b.weight": (16, 24)},  # behind a gap
        {"a.weight": (8, 16), "b.weight": (16, 24)},
        {"a.weight": (8, 0), "b.weight": (8, 16)},
        {"a.weight": (-8, 0), "b.weight": (0, 8)},
    ],
)
def test_tensor_outside_its_place_is_refused(tmp_path: Path, places: dict[str, tuple[int, int]]) -> None:
    header = {name: {"dtype": "F32", "shape": [2], "data_offsets": place} for name, place in places.items()}
    write(tmp_path, header)
    with (tmp_path / "model.safetensors").open("ab") as file:
        file.write(bytes(max(end for _, end in places.values())))
    with pytest.raises(InputError, match=r"(a|b)\.weight has the bytes"):
        weight_shapes(tmp_path)


def test_overlong_header_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, b"{}", length=2**63)
    with pytest.raises(InputError, match="a header of"):
        weight_shapes(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_repeated_key_of_a_configuration_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, {})
    (tmp_path / name).write_text('{"model_type": "llama", "hidden_size": 8, "hidden_size": 16}')
    with pytest.raises(InputError, match=f'{name} cannot be read as JSON: the key "hidden_size" is given more than'):
        weight_shapes(tmp_path)
