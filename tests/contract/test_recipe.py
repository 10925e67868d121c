import json
from typing import Any

import pytest

from contract.failure import FailureReason, InputError
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe


def refusal(body: object) -> InputError:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(InputError) as caught:
        read_recipe(text)
    assert caught.value.failure.reason == FailureReason.RECIPE_INVALID
    return caught.value


def minimal(**more: Any) -> dict[str, Any]:
    return {"model": "m", "dataset": "d.jsonl", **more}


def test_a_model_and_a_dataset_are_enough() -> None:
    recipe = read_recipe(json.dumps(minimal()))
    assert recipe.dataset.path == "d.jsonl"
    assert recipe.adapter.r == 16


def test_a_recipe_survives_being_stored() -> None:
    recipe = read_recipe(json.dumps(minimal(adapter={"target_modules": ["q_proj"]}, schedule={"epochs": 0.5})))
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "model", ["model: required", "dataset: required"]),
        (minimal(lora=1), "lora", ["unknown field", "adapter"]),
        (minimal(adapter={"alhpa": 3}), "adapter.alhpa", ["did you mean alpha?"]),
        (minimal(dataset={"pth": "x"}), "dataset.path", ["dataset.path: required", "did you mean path?"]),
        (minimal(dataset=3), "dataset", ["got 3", "path"]),
        (minimal(optimizer={"learning_rate": "fast"}), "optimizer.learning_rate", ['got "fast"', "number"]),
        (minimal(optimizer={"learning_rate": -1}), "optimizer.learning_rate", ["got -1", "greater than 0"]),
        (minimal(precision="fp8"), "precision", ['got "fp8"', "'bf16'", "'fp32'"]),
        (minimal(batch={"micro_batch": 0}), "batch.micro_batch", ["got 0", "greater than or equal to 1"]),
        (minimal(adapter={"target_modules": "q"}), "adapter.target_modules", ['got "q"', "all-linear", "names"]),
        (minimal(adapter={"target_modules": ["q", 3]}), "adapter.target_modules", ["all-linear", "names"]),
        (minimal(adapter={"target_modules": []}), "adapter.target_modules", ["got []", "names"]),
        (minimal(schedule={"warmup_ratio": 0.1, "warmup_steps": 5}), "schedule", ["not both"]),
        (minimal(adapter=4), "adapter", ["got 4", "object"]),
        (minimal(model="a\0b"), "model", ["model: got"]),
        ([], None, ["must be a JSON object"]),
    ],
)
def test_a_bad_recipe_is_told_the_field_what_was_given_and_what_would_do(
    body: object, param: str | None, words: list[str]
) -> None:
    error = refusal(body)
    assert error.failure.param == param
    for word in words:
        assert word in error.failure.message


def test_text_that_is_no_json_is_told_where() -> None:
    assert "not JSON" in refusal('{"model": ').failure.message


def test_a_learning_rate_that_is_not_a_number_is_refused() -> None:
    error = refusal('{"model": "m", "dataset": "d", "optimizer": {"learning_rate": NaN}}')
    assert error.failure.param == "optimizer.learning_rate"


def test_every_field_of_the_schema_is_described_by_name_or_by_text() -> None:
    schema = Recipe.model_json_schema()
    assert schema["required"] == ["model", "dataset"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["model"]["description"]
