import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from contract.recipe import Recipe
from trainer.model.base_model import load_model
from trainer.saving.checkpoint import save_adapter

RECIPE = Recipe.model_validate({"model": "m", "dataset": "d"})


@pytest.fixture
def adapted(recipe: dict[str, Any]) -> Any:
    module = load_model(Recipe.model_validate(recipe), torch.float32, torch.device("cpu"))
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.01
    return module.model


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_saved_adapter_is_a_config_and_its_weights(adapted: Any, tmp_path: Path, model: Path) -> None:
    size = save_adapter(RECIPE, adapted, trained(adapted), [2], tmp_path / "checkpoints" / "step-000001")
    files = sorted((tmp_path / "checkpoints" / "step-000001").iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert sum(file.stat().st_size for file in files) == size
    assert f'"base_model_name_or_path": "{model.name}"' in files[0].read_text()


def test_named_template_is_saved_beside_the_adapter(adapted: Any, recipe: dict[str, Any], tmp_path: Path) -> None:
    dataset = {"path": recipe["dataset"], "chat_template": "alpaca"}
    named = Recipe.model_validate(recipe | {"dataset": dataset})
    save_adapter(named, adapted, trained(adapted), [2], tmp_path / "adapter")
    beside = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    question = [{"role": "user", "content": "Say hello."}]
    requested = beside.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    assert requested.endswith("### Instruction:\nSay hello.\n\n### Response:\n")


def test_save_that_is_cut_short_leaves_no_adapter(
    adapted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_adapter(RECIPE, adapted, trained(adapted), [2], tmp_path / "adapter")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir() if "adapter" in path.name] == []

    save_adapter(RECIPE, adapted, trained(adapted), [2], tmp_path / "adapter")
    assert [folder.name for folder in tmp_path.iterdir() if "adapter" in folder.name] == ["adapter"]


@pytest.mark.parametrize(("value", "problem"), [(0.0, "B is zero"), (float("nan"), "not finite")])
def test_unusable_adapter_is_not_put_in_place(adapted: Any, tmp_path: Path, value: float, problem: str) -> None:
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(value)
    with pytest.raises(RuntimeError, match=problem):
        save_adapter(RECIPE, adapted, trained(adapted), [2], tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
