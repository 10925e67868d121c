"""Loads the base model and makes it ready to train an adapter on it."""

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import find_adapter_config_file
from transformers.utils.logging import disable_progress_bar

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from trainer import attention
from trainer.adapter import add_adapter, continue_adapter
from trainer.loss import SupervisedLoss

PACKED_MODEL_TYPES = frozenset({"gemma", "glm", "gpt2", "gpt_neox", "llama", "mistral", "phi", "qwen2", "qwen3"})
"""Architectures that are tested to give a packed row what they give its documents alone, and whose logits are plainly
the head of the last hidden states."""


def load_model(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> SupervisedLoss:
    """The base model in `dtype` or in `base_bits`, frozen, with an adapter in fp32: one that changes nothing yet, or an
    earlier one.

    Raises InputError for a model that cannot be loaded and for an adapter that does not fit it.
    """
    disable_progress_bar()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # each thread has its own, and this need not be the main one
    base, packed = _load_base(recipe, dtype, device)
    adapter = recipe.adapter
    if adapter.start_from is not None:
        model = continue_adapter(base, Path(adapter.start_from), adapter.dropout)
    else:
        model = add_adapter(base, adapter)
    if adapter.init == "loftq":
        from trainer.loftq import start_near_base  # bitsandbytes takes more than a second to import

        start_near_base(model, recipe.model)
    model.peft_config["default"].base_model_name_or_path = public_name(recipe.model)
    if recipe.gradient_checkpointing:
        checkpoint_activations(base)
    return SupervisedLoss(model, packed, recipe.neftune_alpha)


def _load_base(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> tuple[Any, bool]:
    """And whether it takes packed rows."""
    bits = recipe.base_bits
    if bits is not None:
        from trainer.quantize import keep_trainable, quantization  # as above
    try:
        # It would be loaded too, from wherever it names as its base.
        if find_adapter_config_file(recipe.model) is not None:
            raise ValueError("it has an adapter in it; give its base, and what a job has saved as adapter.start_from")
        config = AutoConfig.from_pretrained(recipe.model, trust_remote_code=False)
        packed = can_pack(config)
        base = AutoModelForCausalLM.from_pretrained(
            recipe.model,
            config=config,
            dtype=dtype,
            quantization_config=None if bits is None else quantization(bits, dtype),
            device_map={"": device} if device.type == "cuda" or bits is not None else None,
            attn_implementation=attention.NAME if packed else None,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load(recipe.model, error) from error
    if bits == 4:
        keep_trainable(base)
    return base, packed


def most_positions(model: str) -> int | None:
    """Tokens of the longest document of a model that looks its positions up in a table, and fails beyond its end. None
    where it turns or leans instead (RoPE, ALiBi), and where it has no attention: there any length works.

    Raises InputError for a model whose configuration cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise cannot_load(model, error) from error
    if getattr(config, "rope_parameters", None):
        return None
    return getattr(config, "max_position_embeddings", None)


def can_pack(config: Any) -> bool:
    """Some positions are scaled by the longest document in the row: these would feel their neighbours."""
    rope = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in PACKED_MODEL_TYPES
        and getattr(config, "sliding_window", None) is None
        and rope.get("rope_type") not in ("dynamic", "longrope")
    )


def cannot_load(model: str, error: Exception) -> InputError:
    """A hub id that fails to load is most often one that does not exist; a folder is there and holds something else."""
    reason = FailureReason.MODEL_UNSUPPORTED if Path(model).is_dir() else FailureReason.MODEL_NOT_FOUND
    told = str(error)
    if "trust_remote_code" in told:  # transformers' advice
        reason = FailureReason.MODEL_UNSUPPORTED
        told = "it has custom code, which is never run here; use a model of an architecture that transformers has"
    return InputError(reason, f"model: cannot load {model}: {told}", "model")


def checkpoint_activations(base: Any) -> None:
    """In training each layer keeps its input alone, and computes the rest once more in the backward pass.

    Raises InputError for an architecture that cannot.
    """
    try:
        with warnings.catch_warnings():
            # The name since transformers 5.0, to be another one from 6 on.
            warnings.filterwarnings("ignore", message="`gradient_checkpointing_enable` is deprecated")
            base.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        param = "gradient_checkpointing"
        message = f"{param}: a {base.config.model_type} cannot make its activations anew; leave it out"
        raise InputError(FailureReason.MODEL_UNSUPPORTED, message, param) from error
    # Without re-entry the embeddings need no gradient, nor what comes before the first adapted layer.
    base.disable_input_require_grads()


def public_name(model: str) -> str:
    """What the adapter's config calls its base model: a hub id, or a folder's name without the server's path to it."""
    return Path(model).name if Path(model).is_dir() else model
