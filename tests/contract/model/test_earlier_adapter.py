import json
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from contract.model.earlier_adapter import CONFIG, WEIGHTS, check_earlier_adapter
from tests.support.files import write_weights

SHAPES = {
    "model.embed_tokens.weight": [8, 2],
    "model.layers.0.self_attn.k_proj.weight": [3, 2],
    "model.layers.0.self_attn.k_proj.bias": [3],
}
K = "base_model.model.model.layers.0.self_attn.k_proj"
LORA = {f"{K}.lora_A.weight": [5, 2], f"{K}.lora_B.weight": [3, 5]}


def write(folder: Path, tensors: Any = LORA, **config: Any) -> Path:
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "was/this"} | config))
    write_weights(folder / WEIGHTS, tensors)
    return folder


def refusal(folder: Path, shapes: dict[str, list[int]] = SHAPES) -> str:
    with pytest.raises(InputError) as caught:
        check_earlier_adapter(folder, shapes, "org/new")
    failure = caught.value.failure
    assert (failure.code, failure.param) == (FailureCode.RECIPE_INVALID, "adapter.start_from")
    assert failure.message.startswith("adapter.start_from: ")
    assert len(failure.message) < 600
    return failure.message


@pytest.mark.parametrize(
    "more",
    [
        {},
        {f"{K}.lora_magnitude_vector": [3], f"{K}.lora_B.bias": [3]},
        {"base_model.model.model.embed_tokens.lora_embedding_A": [5, 8]},
        {"base_model.model.model.embed_tokens.lora_embedding_B": [2, 5]},
        {"base_model.model.model.embed_tokens.weight": [8, 2], f"{K}.bias": [3]},
        {"base_model.model.lm_head.weight": [8, 2]},  # Tied to the embeddings: it is in no file of the model.
    ],
)
def test_adapter_with_fitting_shapes_is_accepted(more: dict[str, list[int]], tmp_path: Path) -> None:
    check_earlier_adapter(write(tmp_path, LORA | more), SHAPES, "org/new")


def test_adapter_without_the_backbone_name_is_accepted(tmp_path: Path) -> None:
    check_earlier_adapter(write(tmp_path), {k.removeprefix("model."): v for k, v in SHAPES.items()}, "org/new")


def test_weights_that_are_stored_transposed_fit(tmp_path: Path) -> None:
    check_earlier_adapter(write(tmp_path), {f"{K.removeprefix('base_model.model.')}.weight": [2, 3]}, "org/new")


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({f"{K}.lora_A.weight": [5, 4]}, "k_proj has lora_A.weight 5 x 4, the model's weight is 3 x 2"),
        ({f"{K}.lora_B.weight": [4, 5]}, "k_proj has lora_B.weight 4 x 5, the model's weight is 3 x 2"),
        ({f"{K}.lora_magnitude_vector": [4]}, "k_proj has lora_magnitude_vector 4, the model's weight is 3 x 2"),
        ({f"{K}.bias": [4]}, "k_proj.bias is 4, the model's 3"),
        ({f"{K}.lora_A.weight".replace("0", "7"): [5, 2]}, "there is no model.layers.7.self_attn.k_proj;"),
        ({"base_model.model.lm_head.weight": [9, 2]}, "there is no lm_head.weight;"),
        ({f"{K}.vera_lambda_b": [5]}, "there is no model.layers.0.self_attn.k_proj.vera_lambda_b;"),
        ({f"{K}.lora_A.weight": []}, "k_proj has lora_A.weight a single number"),
    ],
)
def test_unfitting_weights_are_refused_with_both_models(
    tensors: dict[str, list[int]], said: str, tmp_path: Path
) -> None:
    message = refusal(write(tmp_path, tensors))
    assert 'made for "was/this" and does not fit org/new: ' in message
    assert said in message
    assert "give the model that it was made for" in message


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_incomplete_adapter_folder_is_refused_by_file(missing: str, tmp_path: Path) -> None:
    (write(tmp_path) / missing).unlink()
    assert f"has no {missing}; start_from needs" in refusal(tmp_path)


def test_pickle_is_told_not_to_be_loaded(tmp_path: Path) -> None:
    (write(tmp_path) / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    assert "adapter_model.bin is a pickle, which is never loaded" in refusal(tmp_path)


@pytest.mark.parametrize("kind", ["IA3", "PREFIX_TUNING", None, ["LORA"]])
def test_other_adapters_than_lora_are_refused(kind: Any, tmp_path: Path) -> None:
    assert "only a LORA" in refusal(write(tmp_path, peft_type=kind))


@pytest.mark.parametrize("init", ["pissa", "olora", "loftq", "corda", {}])
def test_adapter_that_has_changed_its_base_is_refused(init: Any, tmp_path: Path) -> None:
    assert "path_initial_model_for_weight_conversion" in refusal(write(tmp_path, init_lora_weights=init))


@pytest.mark.parametrize("text", [b"", b"[", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_config_that_is_none_is_refused(text: bytes, tmp_path: Path) -> None:
    (write(tmp_path) / CONFIG).write_bytes(text)
    refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 8, b"\2" + b"\0" * 7 + b"{}"])
def test_weights_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    (write(tmp_path) / WEIGHTS).write_bytes(content)
    refusal(tmp_path)
