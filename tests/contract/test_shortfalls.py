from typing import Any

import pytest

from contract.recipe import Recipe
from contract.shortfalls import shortfalls


def warnings(rows: int, **recipe: Any) -> list[str]:
    return shortfalls(Recipe.model_validate({"model": "m", "dataset": "d", **recipe}), rows)


@pytest.mark.parametrize(
    ("recipe", "field", "words"),
    [
        ({"schedule": {"max_steps": 100, "epochs": 3}}, "schedule.max_steps: got 100", "after 3 steps"),
        ({"schedule": {"max_steps": 2, "epochs": 3}}, "schedule.epochs: got 3", "ends after 2.00"),
        ({"schedule": {"warmup_steps": 10}}, "schedule.warmup_steps: got 10", "3 steps"),
        ({"checkpointing": {"every_steps": 4}}, "checkpointing.every_steps: got 4", "only at its end"),
        ({"checkpointing": {"every_epochs": 4}}, "checkpointing.every_epochs: got 4", "has 3 epochs"),
        ({"evaluation": {"fraction": 0.2, "every_steps": 9}}, "evaluation.every_steps: got 9", "start and end"),
        ({"evaluation": {"fraction": 0.2, "patience": 3}}, "evaluation.patience: got 3", "2 evaluations"),
        ({"evaluation": {"fraction": 0.2, "samples": 4}}, "evaluation.samples: got 4", "1 examples are held out"),
        ({"batch": {"effective_batch_size": 64}}, "batch.effective_batch_size: got 64", "8 examples"),
    ],
)
def test_each_unmet_request_is_named(recipe: dict[str, Any], field: str, words: str) -> None:
    (warning,) = warnings(8, **recipe)
    assert warning.startswith(field)
    assert words in warning


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"schedule": {"max_steps": 100}},
        {"schedule": {"max_steps": 3, "epochs": 3}},
        {"schedule": {"warmup_steps": 3}, "checkpointing": {"every_steps": 3}},
        {"evaluation": {"fraction": 0.2, "patience": 2, "every_steps": 1, "samples": 1}},
        {"batch": {"effective_batch_size": 8}},
    ],
)
def test_fully_met_recipe_has_no_warning(recipe: dict[str, Any]) -> None:
    assert warnings(8, **recipe) == []
