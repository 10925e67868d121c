"""Loads, trains and saves an adapter on a tiny model, and reloads it with plain PEFT."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from contract.recipe import Recipe
from dataset.document import Document
from trainer.data.examples import load_data
from trainer.data.items import Item
from trainer.data.packing import PackedBatch, pack
from trainer.model.base_model import load_model
from trainer.model.plain_lora import make_plain
from trainer.model.trained_model import TrainedModel

CPU = torch.device("cpu")
IDS = torch.arange(3, 23)[None]


def load(
    recipe: dict[str, Any],
    folder: Path,
    adapter: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
    **fields: Any,
) -> TrainedModel:
    """`fields` are the recipe's own."""
    torch.manual_seed(1)
    shape = {} if "start_from" in adapter else {"r": 4, "alpha": 8}
    changed = recipe | {"model": str(folder), "adapter": shape | adapter} | fields
    return load_model(Recipe.model_validate(changed), dtype, device)


def documents_of(items: Iterable[Item]) -> list[Document]:
    return [document for item in items for document in item.documents]


def some_rows(recipe: dict[str, Any]) -> PackedBatch:
    return pack(load_data(Recipe.model_validate(recipe), Path(recipe["dataset"]).parent / "tokens").train[4:12])


def loss(module: TrainedModel, batch: PackedBatch) -> torch.Tensor:
    """Mean over the supervised tokens."""
    return module(batch)[0] / len(batch.targets)


def loss_and_gradients(module: TrainedModel, batch: PackedBatch) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the mean loss, by the parameters' names."""
    module.zero_grad()
    mean = loss(module, batch)
    mean.backward()
    return mean.item(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def train(module: TrainedModel, recipe: dict[str, Any], steps: int = 3, rate: float = 1e-2) -> list[float]:
    """The losses before each step."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    return losses_of(module, optimizer, some_rows(recipe).to(module.model.device), steps)


def losses_of(module: TrainedModel, optimizer: torch.optim.Optimizer, batch: PackedBatch, steps: int) -> list[float]:
    """The losses before each step on the same batch."""
    losses = []
    for _ in range(steps):
        before = loss(module, batch)
        before.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(before.item())
    return losses


def save(module: TrainedModel, folder: Path) -> Path:
    module.model.save_pretrained(folder, save_embedding_layers=False)
    if hasattr(module.model, "initial_lora"):
        make_plain(folder, module.model.initial_lora)
    return folder


def logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits.detach()


def plain_base(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def ours(module: TrainedModel) -> torch.Tensor:
    module.take_one_by_one("a test calls the model itself")
    return logits(module.model)


def load_with_random_adapter(
    recipe: dict[str, Any],
    folder: Path,
    targets: str | list[str] = "all-linear",
    dtype: torch.dtype = torch.float32,
) -> TrainedModel:
    """With an adapter that is not zero, so that its gradients are not either."""
    torch.manual_seed(1)
    changed = recipe | {"model": str(folder), "adapter": {"r": 4, "target_modules": targets}}
    module = load_model(Recipe.model_validate(changed), dtype, torch.device("cpu"))
    for name, parameter in module.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.05)
    return module
