"""A small random model of each family that people tune, with the names that PEFT gives its modules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.recipe import Optimizer, Recipe
from dataset.document import Document
from tests.trainer.adapters import losses_of
from tests.trainer.families import FAMILIES, PACKED, VOCABULARY, targets_of
from trainer.data.packing import pack
from trainer.engines.optim import make_optimizer
from trainer.model.base_model import load_model
from trainer.model.trained_model import TrainedModel


def load(folder: Path, targets: str | list[str], dtype: torch.dtype = torch.float32) -> TrainedModel:
    torch.manual_seed(1)
    recipe = {"model": str(folder), "dataset": "none", "adapter": {"r": 4, "target_modules": targets}}
    return load_model(Recipe.model_validate(recipe), dtype, torch.device("cpu"))


def documents() -> list[Document]:
    """Four, of different lengths."""
    torch.manual_seed(2)
    ids = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in (9, 5, 17, 12)]
    return [Document(row, [place >= 3 for place in range(len(row))]) for row in ids]


def own_loss(model: Any, parts: list[Document]) -> torch.Tensor:
    """Transformers', of each document alone, as a sum."""
    losses = []
    for part in parts:
        ids = torch.tensor([part.input_ids])
        labels = torch.where(torch.tensor([part.supervised]), ids, -100)
        losses.append(model(input_ids=ids, labels=labels, use_cache=False).loss * part.targets)
    return torch.stack(losses).sum()


CASES = [(family, targets) for family in FAMILIES for targets in targets_of(family)]


@pytest.mark.parametrize(("family", "targets"), CASES)
def test_family_has_the_loss_of_transformers(
    family: str, targets: str | list[str], make_family: Callable[[str], Path]
) -> None:
    module, reference, parts = load(make_family(family), targets), load(make_family(family), targets), documents()
    assert module.packed == (family in PACKED)
    reference.model.get_base_model().set_attn_implementation("eager")
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        if ours.requires_grad:
            theirs.data = ours.data.normal_(std=0.05).clone()

    loss, expected = module(pack(parts))[0], own_loss(reference.model, parts)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for ours, theirs in zip(module.parameters(), reference.parameters(), strict=True):
        if ours.requires_grad:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "targets"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_family_learns_its_examples(
    family: str, targets: str | list[str], dtype: torch.dtype, make_family: Callable[[str], Path]
) -> None:
    module, batch = load(make_family(family), targets, dtype), pack(documents())
    optimizer = make_optimizer(module.named_parameters(), Optimizer(learning_rate=1e-2))
    losses = losses_of(module, optimizer, batch, steps=4)
    assert losses[-1] < losses[0]
