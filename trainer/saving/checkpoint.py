"""Saves the adapter, complete or not at all, and checks it by reading it back."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contract.recipe import Recipe
from trainer.data.end_tokens import save_end_tokens
from trainer.data.tokenizer import save_tokenizer
from trainer.durable import atomic_folder
from trainer.model.plain_lora import make_plain

_WEIGHTS = "adapter_model.safetensors"


def save_adapter(
    recipe: Recipe, model: Any, adapter: dict[str, torch.Tensor], ends: Collection[int], folder: Path
) -> int:
    """Writes adapter_config.json and adapter_model.safetensors, which PEFT loads, to a new folder. Adds the tokenizer
    if the recipe names a chat template, and generation_config.json if the base's does not stop at all `ends`.

    `model` is the unwrapped PEFT model; `adapter` are its trained tensors, whole, by its own names; `ends` are the
    tokens that ended the learned answers. Returns the bytes written. Raises RuntimeError if the files do not hold a
    usable adapter. A failure leaves nothing behind.
    """
    with atomic_folder(folder) as beside:
        # False, because LoRA does not change the embeddings and PEFT's "auto" would ask the hub about them.
        model.save_pretrained(beside, state_dict=_by_every_name(model, adapter), save_embedding_layers=False)
        if hasattr(model, "initial_lora"):
            make_plain(beside, model.initial_lora)
        # PEFT's model card is an empty form.
        (beside / "README.md").unlink(missing_ok=True)
        if recipe.dataset.chat_template is not None:
            save_tokenizer(recipe, beside)
        save_end_tokens(model.get_base_model().generation_config, ends, beside)
        _check(beside / _WEIGHTS)
    return sum(file.stat().st_size for file in folder.iterdir())


def _by_every_name(model: Any, adapter: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Embeddings that are tied to the head have two names, and PEFT looks up both."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        name: adapter[names[id(parameter)]]
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }


def _check(file: Path) -> None:
    tensors = load_file(file)
    if not tensors or any(tensor.numel() == 0 for tensor in tensors.values()):
        raise RuntimeError("the saved adapter has empty tensors")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise RuntimeError("the saved adapter has numbers that are not finite")
    if not any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name or "lora_embedding_B" in name):
        raise RuntimeError("the saved adapter changes nothing: B is zero")
