"""The headers and the config of a llama of any size, without its weights."""

import json
from pathlib import Path
from typing import Any

from contract.model.loaded_names import loaded_shapes
from contract.recipe import Recipe
from estimate.adapter import trained
from estimate.architecture import read_architecture
from estimate.memory import Model
from tests.files import write_weights

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
"""Llama 2 7B's."""
PARAMETERS = 6_738_415_616
"""As Meta's model card and everybody's counts have it."""


def shapes(config: dict[str, Any] = CONFIG) -> dict[str, list[int]]:
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    key = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": [vocabulary, hidden], "model.norm.weight": [hidden]}
    found["lm_head.weight"] = [vocabulary, hidden]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for name, shape in {
            "self_attn.q_proj": [hidden, hidden],
            "self_attn.k_proj": [key, hidden],
            "self_attn.v_proj": [key, hidden],
            "self_attn.o_proj": [hidden, hidden],
            "mlp.gate_proj": [inner, hidden],
            "mlp.up_proj": [inner, hidden],
            "mlp.down_proj": [hidden, inner],
            "input_layernorm": [hidden],
            "post_attention_layernorm": [hidden],
        }.items():
            found[f"{layer}.{name}.weight"] = shape
    return found


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate({"model": "llama", "dataset": "rows.jsonl", **fields})


def model(given: Recipe, config: dict[str, Any] = CONFIG) -> Model:
    own = loaded_shapes(shapes(config), config)
    return Model(own, config, read_architecture(config, own), trained(given.adapter, own, config, None))


def write_llama(folder: Path, config: dict[str, Any] = CONFIG) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_weights(folder / "model.safetensors", shapes(config), "BF16")
