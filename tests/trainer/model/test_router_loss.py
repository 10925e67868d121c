"""The routers' loss is transformers' own for each document, and adds up the same however documents are divided."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.recipe import Recipe
from dataset.document import Document
from tests.trainer.architectures import VOCABULARY, save_architecture
from trainer.data.packing import pack
from trainer.model.base_model import load_model
from trainer.model.trained_model import TrainedModel

COEFFICIENT = 0.5


def save(kind: str, folder: Path, **config: Any) -> Path:
    save_architecture(kind, folder)
    read = json.loads((folder / "config.json").read_text())
    balanced = {"output_router_logits": True, "router_aux_loss_coef": COEFFICIENT, "aux_loss_coef": COEFFICIENT}
    (folder / "config.json").write_text(json.dumps(read | balanced | config))
    return folder


def load(folder: Path) -> TrainedModel:
    torch.manual_seed(1)
    recipe = Recipe.model_validate({"model": str(folder), "dataset": "none", "adapter": {"r": 4}})
    module = load_model(recipe, torch.float32, torch.device("cpu")).train()
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return module


def documents() -> list[Document]:
    torch.manual_seed(2)
    rows = [torch.randint(3, VOCABULARY, (length,)).tolist() for length in (20, 9, 14)]
    return [Document(row, [place >= 5 for place in range(len(row))]) for row in rows]


def gradients(module: TrainedModel, *batches: list[Document]) -> tuple[float, float, dict[str, torch.Tensor]]:
    """With the sum of all losses, and that of the routers' losses."""
    module.zero_grad()
    totals = [module(pack(batch))[0] for batch in batches]
    for total in totals:
        total.backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert module.router is not None
    return sum(each.item() for each in totals), module.router.take(), found


@pytest.mark.parametrize("kind", ["qwen3_moe", "gpt_oss", "granitemoe", "jetmoe"])
def test_document_has_the_router_loss_of_transformers(kind: str, tmp_path: Path) -> None:
    module, (document, *_) = load(save(kind, tmp_path)), documents()
    module.take_one_by_one("to call the model itself")
    with torch.no_grad():
        ids = torch.tensor([document.input_ids[:-1]])
        expected = module.model(input_ids=ids, use_cache=False).aux_loss.item()
    assert expected > 0
    total, of_routers, _ = gradients(module, [document])
    assert of_routers == pytest.approx(document.targets * expected, rel=1e-5)
    module.eval()
    assert total - COEFFICIENT * of_routers == pytest.approx(module(pack([document]))[0].item(), rel=1e-5)


def test_router_loss_adds_up_however_it_is_divided(tmp_path: Path) -> None:
    module, (one, two, three) = load(save("qwen3_moe", tmp_path)), documents()
    together = gradients(module, [one, two, three])
    divided = gradients(module, [two], [], [three, one])
    torch.testing.assert_close(divided, together, rtol=1e-4, atol=1e-5)


def test_router_loss_moves_what_is_below_a_router(tmp_path: Path) -> None:
    module, rows = load(save("qwen3_moe", tmp_path)), documents()
    _, _, balanced = gradients(module, rows)
    assert module.router is not None
    module.router.coefficient = 0.0
    _, _, without = gradients(module, rows)
    assert any((balanced[name] - without[name]).norm() > 1e-3 * without[name].norm() for name in without)


def test_packed_row_has_the_router_losses_of_its_documents(tmp_path: Path) -> None:
    module, rows = load(save("qwen3_moe", tmp_path)), documents()
    assert module.packed
    together = gradients(module, rows)
    module.take_one_by_one("to compare")
    torch.testing.assert_close(gradients(module, rows), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "config", [{"output_router_logits": False}, {"router_aux_loss_coef": 0.0, "aux_loss_coef": 0.0}]
)
def test_model_without_router_loss_has_none(config: dict[str, Any], tmp_path: Path) -> None:
    assert load(save("qwen3_moe", tmp_path, **config)).router is None
