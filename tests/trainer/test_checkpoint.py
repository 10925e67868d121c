import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from contract.failure import Failure, FailureReason
from contract.recipe import Recipe
from tests.trainer.conftest import command
from trainer.checkpoint import save_adapter
from trainer.model import load_model

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


def test_a_saved_adapter_is_a_config_and_its_weights(adapted: Any, tmp_path: Path, model: Path) -> None:
    size = save_adapter(RECIPE, adapted, trained(adapted), tmp_path / "checkpoints" / "step-000001")
    files = sorted((tmp_path / "checkpoints" / "step-000001").iterdir())
    assert [file.name for file in files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert sum(file.stat().st_size for file in files) == size
    assert f'"base_model_name_or_path": "{model.name}"' in files[0].read_text()


def test_a_save_that_is_cut_short_leaves_no_adapter(
    adapted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_adapter(RECIPE, adapted, trained(adapted), tmp_path / "adapter")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir() if "adapter" in path.name] == []

    save_adapter(RECIPE, adapted, trained(adapted), tmp_path / "adapter")
    assert [folder.name for folder in tmp_path.iterdir() if "adapter" in folder.name] == ["adapter"]


@dataclass(frozen=True)
class SmallDisk:
    folder: Path
    limit: list[str]
    """Before a command that is to find it full."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """300 kB of disk; where we may not mount one, a process that may write no larger file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True)
    if mounted.returncode == 0:
        yield SmallDisk(folder, [])
        subprocess.run(["umount", folder], check=True)
    else:
        yield SmallDisk(folder, ["prlimit", "--fsize=200000"])


def test_a_full_disk_is_told_and_what_was_half_written_is_gone(recipe: dict[str, Any], small_disk: SmallDisk) -> None:
    recipe |= {"adapter": {"r": 64}, "schedule": {"max_steps": 1}}
    (small_disk.folder / "recipe.json").write_text(json.dumps(recipe))
    result = subprocess.run(
        [*small_disk.limit, *command(small_disk.folder)], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 1
    failure = Failure.model_validate_json((small_disk.folder / "error.json").read_bytes())
    assert failure.reason == FailureReason.DISK_FULL, failure.message
    assert sorted(path.name for path in small_disk.folder.iterdir()) == ["error.json", "events.jsonl", "recipe.json"]


@pytest.mark.parametrize(("value", "problem"), [(0.0, "B is zero"), (float("nan"), "not finite")])
def test_an_adapter_of_no_use_is_not_put_in_place(adapted: Any, tmp_path: Path, value: float, problem: str) -> None:
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(value)
    with pytest.raises(RuntimeError, match=problem):
        save_adapter(RECIPE, adapted, trained(adapted), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
