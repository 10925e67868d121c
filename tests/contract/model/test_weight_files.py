"""Which weights of a folder count, and what of them is refused before anything is loaded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from contract.model.folder import weight_shapes
from tests.support.files import write_weights

A, B = "model.layers.0.q_proj.weight", "model.layers.1.q_proj.weight"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_config(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def write_shards(folder: Path, weight_map: Any = None) -> None:
    write_config(folder)
    write_weights(folder / FIRST, {A: [2, 3]})
    write_weights(folder / SECOND, {B: [4, 5]})
    index = {"metadata": {}, "weight_map": {A: FIRST, B: SECOND} if weight_map is None else weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        weight_shapes(folder)
    failure = caught.value.failure
    assert (failure.code, failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    return failure.message


@pytest.mark.parametrize("other", ["consolidated.safetensors", "model.fp32.safetensors", "adapter.safetensors"])
def test_unloaded_weight_files_are_not_counted(tmp_path: Path, other: str) -> None:
    write_shards(tmp_path)
    write_weights(tmp_path / other, {"layers.0.attention.wq.weight": [8192, 4096]})
    assert weight_shapes(tmp_path) == {A: [2, 3], B: [4, 5]}
    # transformers prefers one whole file to shards.
    write_weights(tmp_path / "model.safetensors", {A: [6, 7]})
    assert weight_shapes(tmp_path) == {A: [6, 7]}


def test_file_named_by_config_is_counted_alone(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_weights(tmp_path / "other.safetensors", {B: [6, 7]})
    write_config(tmp_path, transformers_weights="other.safetensors")
    assert weight_shapes(tmp_path) == {B: [6, 7]}
    write_config(tmp_path, transformers_weights="model.safetensors.index.json")
    assert weight_shapes(tmp_path) == {A: [2, 3], B: [4, 5]}
    write_config(tmp_path, transformers_weights="../other.safetensors")
    assert "transformers_weights" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model.fp16.safetensors", FIRST])
def test_weights_transformers_ignores_are_refused_by_name(tmp_path: Path, name: str) -> None:
    write_config(tmp_path)
    write_weights(tmp_path / name, {A: [2, 3]})
    assert f"the folder has {name}, which transformers does not load" in refusal(tmp_path)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / SECOND).unlink()
    assert f"1 of the 2 files that model.safetensors.index.json names are missing: {SECOND}" in refusal(tmp_path)


def test_shard_without_an_indexed_weight_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {A: FIRST, B: FIRST})
    assert f"{B} is not in {FIRST}, where the index has it" in refusal(tmp_path)


@pytest.mark.parametrize(
    "weight_map", [[], {}, {A: 3}, {A: f"../{FIRST}"}, {A: f"/{FIRST}"}, {A: ".."}, {A: ""}, {A: "\0"}]
)
def test_index_without_plain_file_names_is_refused(tmp_path: Path, weight_map: Any) -> None:
    write_shards(tmp_path, weight_map)
    assert "model.safetensors.index.json has no weight_map" in refusal(tmp_path)


@pytest.mark.parametrize("change", [-1, 1, -24, 4096])
def test_torn_file_is_refused(tmp_path: Path, change: int) -> None:
    write_shards(tmp_path)
    size = (tmp_path / FIRST).stat().st_size
    with (tmp_path / FIRST).open("r+b") as file:
        file.truncate(size + change)
    reported = refusal(tmp_path)
    assert f"{FIRST} is not a whole safetensors file: it has {size + change} bytes of {size}" in reported
    assert "download it again" in reported


def compressed(**changes: Any) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", **changes.pop("weights", {})}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    return {"quantization_config": settings | {"config_groups": {"group_0": {"weights": weights}}} | changes}


UNREAD: list[tuple[dict[str, Any], str]] = [
    ({"quantization_config": {"quant_method": "aqlm"}}, "(aqlm)"),
    ({"quantization_config": {"bits": 4}}, "without a quant_method"),
    ({"quantization_config": "x"}, 'that is "x"'),
    ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "bits 3, and only 2, 4, 8 are read"),
    (
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}},
        'the format "marlin"',
    ),
    ({"quantization_config": {"quant_method": "awq", "version": "gemv"}}, 'version "gemv"'),
    ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "bits 3"),
    ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128]}}, "weight_block_size"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "no scheme for weights"),
    ({"compression_config": {"format": "pack-quantized"}}, "no scheme for weights"),
    ({"text_config": {"quantization_config": {"quant_method": "bitsandbytes"}}}, "neither or both"),
    (compressed(format="nvfp4-pack-quantized"), 'the format "nvfp4-pack-quantized"'),
    (compressed(weights={"num_bits": 3}), "num_bits 3"),
    (compressed(sparsity_config={"format": "sparse-24-bitmask"}), "a sparsity_config"),
    (compressed(transform_config={"config_groups": {}}), "a transform_config"),
]


@pytest.mark.parametrize(("config", "said"), UNREAD, ids=lambda given: json.dumps(given))
def test_unread_quantisation_is_refused_with_advice(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    write_shards(tmp_path)
    write_config(tmp_path, **config)
    reported = refusal(tmp_path)
    assert said in reported
    assert "is quantised in a way that is not read here" in reported
    assert "base_bits" in reported


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U8"])
def test_quantised_dtype_without_its_scales_is_refused(tmp_path: Path, dtype: str) -> None:
    write_config(tmp_path)
    write_weights(tmp_path / "model.safetensors", {A: [2, 3]}, dtype)
    assert f"model.safetensors has {A} in {dtype}: it is quantised in a way" in refusal(tmp_path)
    write_config(tmp_path, quantization_config={"quant_method": "fp8"})
    assert f"model.safetensors has {A} in {dtype}: it is quantised in a way" in refusal(tmp_path)


PACKED = "model.layers.0.q_proj."


@pytest.mark.parametrize(
    ("settings", "shapes"),
    [
        ({"quant_method": "gptq", "bits": 4}, {"qweight": [8, 64]}),
        ({"quant_method": "gptq", "bits": 4}, {"qweight": [8, 64], "qzeros": [2, 9], "scales": [2, 64]}),
        ({"quant_method": "gptq", "bits": 4}, {"qweight": [8, 64], "qzeros": [2, 8], "scales": [3, 64]}),
        ({"quant_method": "gptq", "bits": 4}, {"qweight": [8], "qzeros": [2, 8], "scales": [2, 64]}),
        ({"quant_method": "gptq", "bits": 4}, {"qweight": [8, 64], "qzeros": [2, 8], "scales": [2, 64], "g_idx": [9]}),
        ({"quant_method": "awq"}, {"qweight": [64, 8], "qzeros": [3, 8], "scales": [3, 64]}),
        (compressed()["quantization_config"], {"weight_packed": [64, 8], "weight_scale": [64, 2]}),
        ({"quant_method": "mxfp4"}, {"experts_blocks": [4, 64, 2, 15], "experts_scales": [4, 64, 2]}),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, {"SCB": [64]}),
    ],
    ids=json.dumps,
)
def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, settings: dict[str, Any], shapes: dict[str, list[int]]
) -> None:
    write_config(tmp_path, quantization_config=settings)
    write_weights(tmp_path / "model.safetensors", {PACKED + name: shape for name, shape in shapes.items()}, "U8")
    assert re.search(rf"{re.escape(PACKED)}\w+ cannot be dequantised: .*give the files that belong", refusal(tmp_path))


def test_integer_tables_are_accepted(tmp_path: Path) -> None:
    write_config(tmp_path, quantization_config=None)
    write_weights(tmp_path / "model.safetensors", {"position_ids": [1, 9]}, "I64")
    assert weight_shapes(tmp_path) == {"position_ids": [1, 9]}


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, "{", "", "[]", "3", "\ud800"])
def test_malformed_configuration_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    write_shards(tmp_path)
    (tmp_path / name).write_bytes(text.encode(errors="surrogatepass"))
    assert f"model: {name} " in refusal(tmp_path)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_unknown_dtype_is_refused(tmp_path: Path, name: str) -> None:
    write_shards(tmp_path)
    for unknown in ("x", "", "int8", "float8_e4m3fn"):
        write_config(tmp_path, **{name: unknown})
        assert f"{name} of config.json" in refusal(tmp_path)
    for given in ("float32", "torch.bfloat16", "half", "auto", None, {"": "float32"}):
        write_config(tmp_path, **{name: given})
        weight_shapes(tmp_path)


@pytest.mark.parametrize("kind", [{}, [], 3, True])
def test_model_type_must_be_a_word(tmp_path: Path, kind: Any) -> None:
    write_shards(tmp_path)
    write_config(tmp_path, model_type=kind)
    assert "model_type of config.json" in refusal(tmp_path)
