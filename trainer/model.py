"""Loads the base model and puts a LoRA adapter on it."""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import ModulesToSaveWrapper
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from contract.base_model import check_adapter
from contract.failure import FailureReason, InputError
from contract.recipe import CHANGES_BASE, Adapter, Recipe
from trainer import attention
from trainer.convert import lora_tensors
from trainer.loss import SupervisedLoss

PACKED_MODEL_TYPES = frozenset({"gemma", "glm", "gpt2", "gpt_neox", "llama", "mistral", "phi", "qwen2", "qwen3"})
"""Architectures that are tested to give a packed row what they give its documents alone, and whose logits are plainly
the head of the last hidden states."""

_EXPECTED_WARNINGS = (
    "`is_gradient_checkpointing`",  # PEFT 0.21 reads an attribute by the name it had before transformers 5.
    "fan_in_fan_out is set to",  # GPT-2 has one linear module that is not transposed, its head: PEFT sets it right.
    "Using Rank-Stabilized LoRA with rank_pattern",  # What PEFT cannot convert, trainer.convert does.
)


def load_model(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> SupervisedLoss:
    """The base model in `dtype`, frozen, with an adapter in fp32 that changes nothing yet.

    Raises InputError for a model that cannot be loaded and for target_modules that it has not.
    """
    disable_progress_bar()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # each thread has its own, and this need not be the main one
    try:
        config = AutoConfig.from_pretrained(recipe.model, trust_remote_code=False)
        packed = can_pack(config)
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
    return InputError(reason, f"model: cannot load {model}: {error}", "model")


def add_adapter(base: Any, adapter: Adapter) -> Any:
    """LoRA (Hu et al. 2021, arXiv:2106.09685) on the modules that the recipe names; the model computes what it did.

    Raises InputError for names that the model has not, and for what cannot be done to its modules.
    """
    check_adapter(adapter, {name: list(parameter.shape) for name, parameter in base.named_parameters()})
    transposed = any(isinstance(module, Conv1D) for module in base.modules())
    if transposed and adapter.init == "olora":
        message = (
            f"adapter.init: got {adapter.init!r}; a {base.config.model_type} has its weights transposed, use 'pissa'"
        )
        raise InputError(FailureReason.RECIPE_INVALID, message, "adapter.init")
    dtype = base.dtype
    if adapter.bias != "none" and dtype != torch.float32:
        message = f"adapter.bias: {adapter.bias!r} trains biases of the base, which is in {dtype}; use precision fp32"
        raise InputError(FailureReason.PRECISION_UNAVAILABLE, message, "adapter.bias")
    # Embeddings that are trained whole stay the head's, so that the adapter can be merged.
    embedding = next(name for name, module in base.named_modules() if module is base.get_input_embeddings())
    ties = base.config.tie_word_embeddings and embedding.rsplit(".", 1)[-1] in adapter.modules_to_save
    try:
        with warnings.catch_warnings():
            for message in _EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message=message)
            model = get_peft_model(base, _lora_config(adapter, transposed, ties))
    except ValueError as error:
        raise InputError(
            FailureReason.TARGET_MODULES_UNMATCHED, f"adapter.target_modules: {error}", "adapter.target_modules"
        ) from error
    if dtype != torch.float32:
        for module in model.modules():
            if isinstance(module, ModulesToSaveWrapper):
                _train_in_fp32(module.modules_to_save["default"], dtype)
    if adapter.init in CHANGES_BASE:
        model.initial_lora = lora_tensors(model)
    return model


def _lora_config(adapter: Adapter, transposed: bool, ties: bool) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        bias=adapter.bias,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        init_lora_weights=True if adapter.init == "default" else adapter.init,
        modules_to_save=adapter.modules_to_save or None,
        rank_pattern=adapter.rank_pattern,
        alpha_pattern=adapter.alpha_pattern,
        fan_in_fan_out=transposed,
        ensure_weight_tying=ties,
    )


def _train_in_fp32(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Steps of a module that is trained whole would be lost in bf16. It takes and gives `dtype`, as it did before."""
    module.float()
    module.register_forward_pre_hook(
        lambda _, inputs: tuple(tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs)
    )
    module.register_forward_hook(lambda _, __, output: output.to(dtype))


def public_name(model: str) -> str:
    """What the adapter's config calls its base model: a hub id, or a folder's name without the server's path to it."""
    return Path(model).name if Path(model).is_dir() else model
