"""Files that are not those of config.json are refused before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from contract.model.folder import loaded_base
from tests.support.files import write_weights

CONFIG = {"model_type": "llama", "vocab_size": 32, "num_hidden_layers": 2}
WEIGHTS = {
    "model.embed_tokens.weight": [32, 8],
    "model.layers.0.self_attn.q_proj.weight": [8, 8],
    "model.layers.1.self_attn.q_proj.weight": [8, 8],
    "lm_head.weight": [32, 8],
}


def write_model(folder: Path, weights: dict[str, list[int]] = WEIGHTS, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    write_weights(folder / "model.safetensors", weights)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        loaded_base(folder)
    assert (caught.value.failure.code, caught.value.failure.param) == (FailureCode.MODEL_UNSUPPORTED, "model")
    return caught.value.failure.message


def test_matching_files_are_accepted(tmp_path: Path) -> None:
    assert loaded_base(write_model(tmp_path)).shapes == WEIGHTS


def test_layer_beyond_the_config_predicts_further_tokens(tmp_path: Path) -> None:
    assert (
        "model.layers.1.self_attn.q_proj.weight" not in loaded_base(write_model(tmp_path, num_hidden_layers=1)).shapes
    )


def test_other_vocabulary_is_refused(tmp_path: Path) -> None:
    assert "vocab_size of config.json is 64, and its files have 32 embeddings" in refusal(
        write_model(tmp_path, vocab_size=64)
    )


@pytest.mark.parametrize("config", [{"num_hidden_layers": 3}, {"text_config": {"num_hidden_layers": 3}}])
def test_missing_layers_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    assert "config.json has 3 layers, and its files have 2" in refusal(write_model(tmp_path, **config))


def test_missing_embeddings_are_refused(tmp_path: Path) -> None:
    weights = {name: shape for name, shape in WEIGHTS.items() if "embed" not in name}
    assert "its files have no embeddings" in refusal(write_model(tmp_path, weights))
