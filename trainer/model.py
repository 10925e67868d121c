"""Loads the base model and puts a LoRA adapter on it."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from contract.failure import FailureReason, InputError
from contract.recipe import Adapter, Recipe
from trainer import attention
from trainer.loss import SupervisedLoss

PACKED_MODEL_TYPES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures that are tested to give a packed row what they give its documents alone, and whose logits are plainly
the head of the last hidden states."""


def load_model(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> SupervisedLoss:
    """The base model in `dtype`, frozen, with an adapter in fp32 that changes nothing yet.

    Raises InputError for a model that cannot be loaded and for target_modules that it has not.
    """
    disable_progress_bar()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # each thread has its own, and this need not be the main one
    try:
        config = AutoConfig.from_pretrained(recipe.model, trust_remote_code=False)
        packed = config.model_type in PACKED_MODEL_TYPES and getattr(config, "sliding_window", None) is None
        base = AutoModelForCausalLM.from_pretrained(
            recipe.model,
            config=config,
            dtype=dtype,
            device_map={"": device} if device.type == "cuda" else None,
            attn_implementation=attention.NAME if packed else None,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load(recipe.model, error) from error
    model = add_adapter(base, recipe.adapter)
    model.peft_config["default"].base_model_name_or_path = public_name(recipe.model)
    return SupervisedLoss(model, packed)


def cannot_load(model: str, error: Exception) -> InputError:
    """A hub id that fails to load is most often one that does not exist; a folder is there and holds something else."""
    reason = FailureReason.MODEL_UNSUPPORTED if Path(model).is_dir() else FailureReason.MODEL_NOT_FOUND
    return InputError(reason, f"model: cannot load {model}: {error}", "model")


def add_adapter(base: Any, adapter: Adapter) -> Any:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) on the modules that the recipe names; B starts at zero."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
    )
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 reads an attribute by the name it had before transformers 5.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            return get_peft_model(base, config)
    except ValueError as error:
        raise InputError(
            FailureReason.TARGET_MODULES_UNMATCHED, f"adapter.target_modules: {error}", "adapter.target_modules"
        ) from error


def public_name(model: str) -> str:
    """What the adapter's config calls its base model: a hub id, or a folder's name without the server's path to it."""
    return Path(model).name if Path(model).is_dir() else model
