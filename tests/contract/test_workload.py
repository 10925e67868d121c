from typing import Any

import pytest

from contract.order import workload
from contract.recipe import Recipe


@pytest.mark.parametrize(
    ("recipe", "examples"),
    [
        ({}, 300),
        ({"schedule": {"epochs": 1.5}}, 156),
        ({"evaluation": {"fraction": 0.29}}, 216),
        ({"evaluation": {"fraction": 0.001}}, 297),
        ({"schedule": {"max_steps": 5}}, 40),
        ({"schedule": {"max_steps": 5, "epochs": 0.1}}, 16),
        ({"schedule": {"max_steps": 50}}, 388),
        ({"schedule": {"max_steps": 5}, "batch": {"gradient_accumulation_steps": 2}}, 80),
        ({"schedule": {"max_steps": 5}, "batch": {"effective_batch_size": 7}}, 35),
        ({"schedule": {"max_steps": 2}, "resources": {"gpus": 3, "nodes": 4}}, 100),
    ],
)
def test_workload_counts_examples_of_each_epoch(recipe: dict[str, Any], examples: int) -> None:
    planned = workload(Recipe.model_validate({"model": "m", "dataset": "d", **recipe}), rows=100)
    assert planned.examples == examples
