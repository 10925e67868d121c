"""Saves the adapter so that it is whole or absent, and reads back what it saved."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from contract.recipe import Recipe
from trainer.data.end_tokens import save_ends
from trainer.data.tokenizer import save_tokenizer
from trainer.durable import whole_folder
from trainer.model.plain_lora import make_plain

_WEIGHTS = "adapter_model.safetensors"


def save_adapter(
    recipe: Recipe, model: Any, adapter: dict[str, torch.Tensor], ends: Collection[int], folder: Path
) -> int:
    """Writes adapter_config.json and adapter_model.safetensors, which PEFT loads, to a new folder; the tokenizer too
    where its chat template is the recipe's, and generation_config.json where the base's does not stop at all `ends`.

    `model` is the PEFT model, unwrapped; `adapter` its trained tensors by its own names, whole; `ends` the tokens that
    ended the answers it has learned. Returns the bytes written. Raises RuntimeError when what is on disk is not an
    adapter of use. A failure leaves nothing behind.
    """
    with whole_folder(folder) as beside:
        # False: LoRA leaves the embeddings alone, and PEFT's "auto" would ask the hub about them.
        model.save_pretrained(beside, state_dict=_by_every_name(model, adapter), save_embedding_layers=False)
        if hasattr(model, "initial_lora"):
            make_plain(beside, model.initial_lora)
        # PEFT's model card is an empty form.
        (beside / "README.md").unlink(missing_ok=True)
        if recipe.dataset.chat_template is not None:
            save_tokenizer(recipe, beside)
        save_ends(model.get_base_model().generation_config, ends, beside)
        _check(beside / _WEIGHTS)
    return sum(file.stat().st_size for file in folder.iterdir())


def _by_every_name(model: Any, adapter: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Embeddings that are also the head have two names, and PEFT asks for both."""
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
