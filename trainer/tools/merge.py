"""Merges an adapter into its base model, on the CPU.

An adapter that was trained on a base in 4 or 8 bits is merged into the original base, one that started with LoftQ into
the weights that 4 bits leave, and one for a base whose files are quantised into the dequantised weights.
"""

import contextlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from peft import PeftModel
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from contract.recipe import Recipe
from trainer.data.end_tokens import add_end_tokens
from trainer.data.tokenizer import copy_image_settings, copy_tokenizer, save_tokenizer
from trainer.durable import atomic_folder
from trainer.model.adapter import check_saved_adapter
from trainer.model.base_model import loading_errors
from trainer.model.pretrained import load_pretrained
from trainer.tools.learned_ends import learned_ends


def merge(recipe: Recipe, folder: Path, shard_size: str = "5GB", init: str = "default") -> None:
    """Writes a model that plain transformers loads to a new folder: weights in the base's own format, config, the
    tokenizer of training, and a generation_config.json that stops at the tokens that ended the learned answers.

    `shard_size` is that of the largest file, and `init` the adapter.init that the adapter started with. Raises
    InputError for a base or a tokenizer that cannot be loaded, and for an adapter that does not fit.
    """
    model = merged_model(recipe, init)
    with atomic_folder(folder) as beside:
        # First, because transformers chooses the tokenizer's class by config.json too.
        model.save_pretrained(beside, max_shard_size=shard_size)
        if recipe.dataset.chat_template is not None:
            save_tokenizer(recipe, beside)
        else:
            copy_tokenizer(recipe, beside)
        copy_image_settings(recipe, beside)


def merged_model(recipe: Recipe, init: str) -> Any:
    """It stops where the learned answers ended. Raises InputError."""
    disable_progress_bar()
    with loading_errors(recipe.model):
        base = _load_in_4_bits(recipe.model) if init == "loftq" else load_pretrained(recipe.model)
    adapter = Path(recipe.adapter.start_from or "")
    check_saved_adapter(adapter, base)
    model = PeftModel.from_pretrained(base, adapter).merge_and_unload(safe_merge=True)
    ends = learned_ends(recipe)
    add_end_tokens(model.generation_config, ends)
    # Some models' configurations accept only one id. Generation uses the other configuration.
    with contextlib.suppress(StrictDataclassFieldValidationError):
        add_end_tokens(model.config.get_text_config(), ends)
    return model


def _load_in_4_bits(model: str) -> Any:
    """The weights that a LoftQ adapter corrects, dequantised."""
    from trainer.model.quantize import quantization  # imports bitsandbytes, which takes more than a second

    dtype = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config().dtype or torch.float32
    base = load_pretrained(model, dtype, quantization_config=quantization(4, dtype), device_map="cpu").dequantize(dtype)
    base.name_or_path = model
    return base
