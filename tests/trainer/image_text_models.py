"""Tiny random models for images and text."""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.trainer.architectures import SIZES

_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    # Qwen's names.
    "depth": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "out_hidden_size": 64,
    "deepstack_visual_indexes": [0],
}
_PARTS: dict[str, tuple[str, str | None]] = {
    "gemma3": ("gemma3_text", "siglip_vision_model"),
    "idefics3": ("llama", "idefics3_vision"),
    "internvl": ("qwen2", "internvl_vision"),
    "lfm2_vl": ("lfm2", "siglip2_vision_model"),
    "llama4": ("llama4_text", "llama4_vision_model"),
    "llava": ("llama", "clip_vision_model"),
    "mistral3": ("mistral", "pixtral"),
    "qwen2_5_vl": ("qwen2_5_vl_text", None),
    "qwen2_vl": ("qwen2_vl_text", None),
    "qwen3_5": ("qwen3_5_text", None),
    "qwen3_vl": ("qwen3_vl_text", None),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", None),
    "smolvlm": ("llama", "smolvlm_vision"),
}
"""The text part and the image part; None for one without a type of its own."""
_OF_ONE: dict[str, dict[str, Any]] = {
    "gemma3": {"mm_tokens_per_image": 4, "tie_word_embeddings": True},
    "qwen3_5": {"layer_types": ["linear_attention", "full_attention"]},
}


def save_image_text(kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind]
    text, image = _PARTS[kind]
    own = _OF_ONE.get(kind, {})
    names = inspect.signature(config.__init__).parameters
    text_config = _sizes(text) | {name: value for name, value in own.items() if name not in names}
    if kind.startswith("qwen") and "_vl" in kind:
        text_config["rope_parameters"] = _ROPE
    vision_config = _VISION if image is None else _VISION | {"model_type": image}
    top = {name: value for name, value in own.items() if name in names}
    model = AutoModelForImageTextToText.from_config(config(text_config=text_config, vision_config=vision_config, **top))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)


def _sizes(kind: str) -> dict[str, Any]:
    names = inspect.signature(CONFIG_MAPPING[kind].__init__).parameters
    return {"model_type": kind} | {name: size for name, size in SIZES.items() if name in names}
