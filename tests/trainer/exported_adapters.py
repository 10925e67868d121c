"""Trained adapters of all options that have a portable form."""

from pathlib import Path
from typing import Any

from contract.export import ExportSpec
from contract.recipe import Recipe
from tests.trainer.adapters import load, save, train

SPEC = ExportSpec(format="portable", base="org/base")
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8},
    "rslora": {"rslora": True, "alpha": 5},
    "patterns": {
        "rslora": True,
        "rank_pattern": {"q_proj": 12, "layers.1.mlp.up_proj": 3},
        "alpha_pattern": {"v_proj": 3, "mlp.down_proj": 1},
    },
    "pissa": {"init": "pissa"},
    "olora": {"init": "olora", "rslora": True},
    "expression": {"target_modules": r".*layers\.1\..*(k|up)_proj"},
}


def adapt(recipe: dict[str, Any], model: Path, adapter: dict[str, Any], folder: Path) -> tuple[Any, Recipe]:
    """A trained module, and the recipe that exports its adapter."""
    module = load(recipe, model, adapter)
    train(module, recipe)
    start_from = str(save(module, folder))
    return module, Recipe.model_validate(recipe | {"model": str(model), "adapter": {"start_from": start_from}})
