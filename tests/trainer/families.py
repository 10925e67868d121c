"""The configs of small models of the families that people tune."""

from collections.abc import Callable
from typing import Any

from transformers import (
    BloomConfig,
    Gemma2Config,
    GemmaConfig,
    GlmConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 96


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


MULTI_HEAD = SIZES | {"num_key_value_heads": 4}


OLD_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


FAMILIES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "llama": (lambda: LlamaConfig(**SIZES), ["q_proj", "v_proj"]),
    "qwen2": (lambda: Qwen2Config(**SIZES), ["q_proj", "v_proj"]),
    "qwen3": (lambda: Qwen3Config(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gpt2": (lambda: GPT2Config(**OLD_SIZES, n_positions=64), ["c_attn"]),
    "gpt_neox": (lambda: GPTNeoXConfig(**MULTI_HEAD), ["query_key_value"]),
    "bloom": (lambda: BloomConfig(**OLD_SIZES), ["query_key_value"]),
    "glm": (lambda: GlmConfig(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gemma": (lambda: GemmaConfig(**SIZES, head_dim=8), ["q_proj", "v_proj"]),
    "gemma2": (lambda: Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=2.0), ["q_proj", "v_proj"]),
    "phi": (lambda: PhiConfig(**MULTI_HEAD), ["q_proj", "v_proj", "fc1", "fc2"]),
}
"""The config, and PEFT's own choice of modules (peft.utils.constants)."""


PACKED = FAMILIES.keys() - {"bloom"}


def targets_of(family: str) -> list[str | list[str]]:
    return ["all-linear", FAMILIES[family][1]]
