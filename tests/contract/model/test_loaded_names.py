"""Names of the loaded model, from those of its files."""

from typing import Any

import pytest

from contract.model.loaded_names import loaded_shapes


@pytest.mark.parametrize(
    ("name", "config", "loaded"),
    [
        ("h.0.attn.c_attn.weight", {"model_type": "gpt2"}, "transformer.h.0.attn.c_attn.weight"),
        ("layers.0.mlp.up_proj.weight", {"model_type": "llama"}, "model.layers.0.mlp.up_proj.weight"),
        ("decoder.layers.0.fc1.weight", {"model_type": "opt"}, "model.decoder.layers.0.fc1.weight"),
        ("backbone.layers.0.mixer.in_proj.weight", {"model_type": "nemotron_h"}, "model.layers.0.mixer.in_proj.weight"),
        ("backbone.layers.0.mixer.in_proj.weight", {"model_type": "mamba"}, "backbone.layers.0.mixer.in_proj.weight"),
        ("language_model.model.norm.weight", {"model_type": "gemma3"}, "model.language_model.norm.weight"),
        ("model.language_model.norm.weight", {"model_type": "qwen3_5"}, "model.norm.weight"),
        ("language_model.model.norm.weight", {"model_type": "mistral3"}, "model.language_model.norm.weight"),
        ("language_model.lm_head.weight", {"model_type": "llava"}, "lm_head.weight"),
        ("model.norm.weight", {"model_type": "qwen2_5_vl"}, "model.language_model.norm.weight"),
        ("visual.merger.ln_q.weight", {"model_type": "qwen2_vl"}, "model.visual.merger.ln_q.weight"),
        ("model.norm.weight", {"model_type": 3}, "model.norm.weight"),
        ("lm_head.weight", {"tie_word_embeddings": False}, "lm_head.weight"),
    ],
)
def test_weight_has_the_name_that_transformers_gives_it(name: str, config: dict[str, Any], loaded: str) -> None:
    assert loaded_shapes({name: [4, 2]}, config) == {loaded: [4, 2]}


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("lm_head.weight", {"tie_word_embeddings": True}),
        ("lm_head.weight", {"text_config": {"tie_word_embeddings": True}}),
        ("model.layers.2.mlp.up_proj.weight", {"num_hidden_layers": 2}),
        ("mtp.layers.0.mlp.up_proj.weight", {}),
        ("model.visual.blocks.0.attn.qkv.weight", {"model_type": "qwen3_5"}),
        ("h.0.attn.bias", {"model_type": "gpt2"}),
        ("model.layers.0.mlp.gate.e_score_correction_bias", {"model_type": "deepseek_v3"}),
    ],
)
def test_parameters_that_are_not_loaded_are_skipped(name: str, config: dict[str, Any]) -> None:
    assert loaded_shapes({name: [4, 2]}, config) == {}


def test_matrix_that_is_loaded_as_several_is_divided() -> None:
    found = loaded_shapes({"model.H_module.layers.0.mlp.gate_up_proj.weight": [8, 2]}, {"model_type": "hrm_text"})
    assert found == {f"model.H_module.layers.0.mlp.{name}_proj.weight": [4, 2] for name in ("gate", "up")}
