"""Loads base models with transformers, whatever format their files have."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
)
from transformers.integrations import is_deepspeed_zero3_enabled

from contract.model.model_types import IMAGE_TEXT_TYPES
from contract.model.quantisation import find_quantisation
from trainer.model.dequantise.checkpoint import DequantisedSlice, dequantised_weights

_PATTERNS = ["*.json", "*.safetensors"]


def load_pretrained(model: str, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """The model in 16 or 32 bits, dequantised where its files are quantised. None is the files' own `dtype`."""
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    return load_by_config(model, config, dtype, **options)[0]


def load_by_config(
    model: str, config: Any, dtype: torch.dtype | None, as_stored: bool = False, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """The model and what transformers reports about its weights. `as_stored` leaves quantised weights as they are."""
    if as_stored or find_quantisation(config.to_dict()) is None:
        return _auto_class(config).from_pretrained(
            model,
            config=config,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    folder = download(model)
    _forget_quantisation(config)
    dtype = dtype or config.get_text_config().dtype or torch.bfloat16
    weights = dequantised_weights(folder)
    # The automatic class needs the name of a folder, with which transformers takes no weights.
    model_class = _model_class(config)
    is_text_part = isinstance(config.get_text_config(), model_class.config_class)
    base, loaded = model_class.from_pretrained(
        None,
        config=config.get_text_config() if is_text_part else config,
        dtype=dtype,
        state_dict=_whole(weights, dtype) if is_deepspeed_zero3_enabled() else weights,
        generation_config=_generation_config(folder),
        output_loading_info=True,
        **options,
    )
    base.name_or_path = base.config.name_or_path = model
    return base, loaded


def download(model: str) -> Path:
    """The model's folder; that of the hub's snapshot for a hub id."""
    return Path(model) if Path(model).is_dir() else Path(snapshot_download(model, allow_patterns=_PATTERNS))


def _auto_class(config: Any) -> Any:
    return AutoModelForImageTextToText if config.model_type in IMAGE_TEXT_TYPES else AutoModelForCausalLM


def _model_class(config: Any) -> Any:
    whole = config.model_type in IMAGE_TEXT_TYPES
    return (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if whole else MODEL_FOR_CAUSAL_LM_MAPPING)[type(config)]


def _forget_quantisation(config: Any) -> None:
    for each in (config, config.get_text_config()):
        for name in ("quantization_config", "compression_config"):
            if hasattr(each, name):
                delattr(each, name)


def _whole(weights: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Tensors, which transformers expects for ZeRO-3. Only the first rank needs their values."""
    if torch.distributed.get_rank() > 0:
        return {name: torch.empty(each.get_shape(), dtype=dtype, device="meta") for name, each in weights.items()}
    return {
        name: each[...].to(dtype) if isinstance(each, DequantisedSlice) else each[...] for name, each in weights.items()
    }


def _generation_config(folder: Path) -> GenerationConfig | None:
    """None for a model without one, for which transformers makes it from config.json."""
    if not (folder / "generation_config.json").is_file():
        return None
    return GenerationConfig.from_pretrained(folder)
