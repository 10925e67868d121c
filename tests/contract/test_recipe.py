import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.failure import FailureCode, InputError
from contract.recipe import Adapter, Recipe
from contract.recipe_errors import parse_recipe


def refusal(body: object) -> InputError:
    text = body if isinstance(body, str) else json.dumps(body)
    with pytest.raises(InputError) as caught:
        parse_recipe(text)
    assert caught.value.failure.code == FailureCode.RECIPE_INVALID
    return caught.value


def minimal(**more: Any) -> dict[str, Any]:
    return {"model": "m", "dataset": "d.jsonl", **more}


def test_model_and_a_dataset_are_enough() -> None:
    recipe = parse_recipe(json.dumps(minimal()))
    assert recipe.dataset.path == "d.jsonl"
    assert recipe.adapter.r == 16


def test_both_datasets_are_written_alike() -> None:
    recipe = parse_recipe(json.dumps(minimal(evaluation={"dataset": "e.jsonl", "patience": 2, "samples": 3})))
    assert recipe.evaluation.dataset is not None
    assert recipe.evaluation.dataset == recipe.dataset.model_copy(update={"path": "e.jsonl"})
    assert recipe.evaluation.holds_out
    assert not parse_recipe(json.dumps(minimal())).evaluation.holds_out


def test_recipe_survives_being_stored() -> None:
    recipe = parse_recipe(json.dumps(minimal(adapter={"target_modules": ["q_proj"]}, schedule={"epochs": 0.5})))
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
        (minimal(precision="int8"), "precision", ['got "int8"', "'bf16'", "'fp8'"]),
        (
            minimal(batch={"micro_batch_size": 0}),
            "batch.micro_batch_size",
            ["got 0", "a whole number from 1", 'or "auto"'],
        ),
        (minimal(adapter={"target_modules": "q("}), "adapter.target_modules", ['got "q("', "regular expression"]),
        (minimal(adapter={"target_modules": "q" * 201}), "adapter.target_modules", ["201 characters", "200 at most"]),
        (minimal(adapter={"target_modules": 3}), "adapter.target_modules", ["got 3", "all-linear", "names"]),
        (minimal(adapter={"target_modules": ["q", 3]}), "adapter.target_modules", ["all-linear", "names"]),
        (minimal(adapter={"target_modules": []}), "adapter.target_modules", ["got []", "names"]),
        (minimal(schedule={"warmup_ratio": 0.1, "warmup_steps": 5}), "schedule", ["not both"]),
        (
            minimal(batch={"gradient_accumulation_steps": 2, "effective_batch_size": 8}),
            "batch",
            ["gradient_accumulation_steps or effective_batch_size, not both"],
        ),
        (minimal(batch={"micro_batch_size": "auto"}), "batch", ['"auto" needs effective_batch_size']),
        (minimal(batch={"micro_batch_size": "all"}), "batch.micro_batch_size", ['got "all"', "whole number", '"auto"']),
        (minimal(evaluation={"patience": 2}), "evaluation", ["patience needs held-out examples", "fraction"]),
        (minimal(evaluation={"samples": 2}), "evaluation", ["samples needs held-out examples", "fraction"]),
        (minimal(evaluation={"fraction": 0.1, "dataset": "e.jsonl"}), "evaluation", ["fraction or dataset, not both"]),
        (
            minimal(evaluation={"dataset": {"path": "e.jsonl", "chat_template": "plain"}}),
            "evaluation",
            ["chat_template of the recipe's dataset"],
        ),
        (minimal(evaluation={"dataset": {"pth": "x"}}), "evaluation.dataset.path", ["did you mean path?"]),
        (minimal(parallel={"zero_stage": 2}), "parallel", ["zero_stage is DeepSpeed's"]),
        (minimal(parallel={"engine": "fsdp", "offload_optimizer": True}), "parallel", ["offload_optimizer is DeepSp"]),
        (
            minimal(parallel={"engine": "deepspeed", "zero_stage": 0, "offload_optimizer": True}),
            "parallel",
            ["needs zero_stage 1, 2 or 3"],
        ),
        (minimal(parallel={"engine": "deepspeed", "offload_parameters": True}), "parallel", ["needs zero_stage 3"]),
        (minimal(parallel={"engine": "fsdp"}, precision="fp16"), "precision", ['got "fp16"', "bf16"]),
        (minimal(parallel={"engine": "fsdp"}, base_bits=4), "base_bits", ["got 4", "cannot be sharded"]),
        (minimal(parallel={"engine": "fsdp"}, optimizer={"type": "adamw_8bit"}), "optimizer.type", ["adamw_8bit"]),
        (
            minimal(parallel={"engine": "deepspeed", "zero_stage": 0}, precision="fp16"),
            "precision",
            ["a parallel.zero_stage of 1, 2 or 3"],
        ),
        (
            minimal(parallel={"engine": "deepspeed", "zero_stage": 3}, adapter={"init": "pissa"}),
            "adapter.init",
            ["starts from whole weights"],
        ),
        (
            minimal(parallel={"engine": "deepspeed", "zero_stage": 3}, adapter={"bias": "all"}),
            "adapter.bias",
            ["shards the biases"],
        ),
        (
            minimal(parallel={"engine": "deepspeed", "zero_stage": 3}, adapter={"experts": True}),
            "adapter.experts",
            ["divides the LoRA of routed experts"],
        ),
        (minimal(adapter={"init": "loftq"}), "adapter.init", ["set base_bits to 4"]),
        (minimal(torch_compile=True, parallel={"engine": "fsdp"}), "torch_compile", ["fsdp", "ddp"]),
        (minimal(torch_compile=True, base_bits=4), "torch_compile", ["4 bits", "leave base_bits out"]),
        (
            minimal(torch_compile=True, gradient_checkpointing=True),
            "torch_compile",
            ["leave one of them"],
        ),
        (minimal(adapter={"init": "pissa"}, base_bits=8), "adapter.init", ["pissa", "changes the base"]),
        (minimal(adapter={"bias": "all"}, base_bits=8), "adapter.bias", ["no bias of the base"]),
        (
            minimal(precision="fp8", parallel={"engine": "fsdp"}),
            "precision",
            ['got "fp8"', "cannot be sharded", "bf16"],
        ),
        (
            minimal(precision="fp8", parallel={"engine": "deepspeed", "zero_stage": 3}),
            "precision",
            ["a zero_stage below 3"],
        ),
        (minimal(precision="fp8", base_bits=4), "base_bits", ["got 4", "leave one of them out"]),
        (minimal(precision="fp8", torch_compile=True), "torch_compile", ["no layer is compiled"]),
        (minimal(precision="fp8", adapter={"dora": True}), "adapter.dora", ["whole weights", "bf16"]),
        (minimal(precision="fp8", adapter={"bias": "all"}), "adapter.bias", ["changes the base", "fp32"]),
        (minimal(adapter={"start_from": "job_1", "r": 8}), "adapter", ["the earlier adapter's r; leave r out"]),
        (minimal(adapter=4), "adapter", ["got 4", "object"]),
        (minimal(model="a\0b"), "model", ["model: got"]),
        ([], None, ["must be a JSON object"]),
    ],
)
def test_invalid_recipe_names_field_value_and_remedy(body: object, param: str | None, words: list[str]) -> None:
    error = refusal(body)
    assert error.failure.param == param
    for word in words:
        assert word in error.failure.message


def test_text_that_is_no_json_is_told_where() -> None:
    assert "not JSON" in refusal('{"model": ').failure.message


def test_ten_problems_are_told_and_the_rest_counted() -> None:
    failure = refusal(minimal(**{f"field{number}": 1 for number in range(13)})).failure
    assert failure.param == "field0"
    assert failure.message.count("unknown field") == 10
    assert failure.message.endswith("; and 3 more problems")


@pytest.mark.parametrize(
    "recipe",
    [
        minimal(**{f"{number:x}": 1 for number in range(80_000)}),
        minimal(adapter={"target_modules": [1] * 300_000}),
        minimal(**{"x" * 900_000: 1}),
        minimal(model="x" * 900_000),
    ],
    ids=["fields", "items", "a name", "a value"],
)
def test_megabyte_of_nonsense_is_answered_shortly_and_soon(recipe: dict[str, Any]) -> None:
    began = time.process_time()
    failure = refusal(recipe).failure
    assert time.process_time() - began < 10  # what grows with the square takes minutes
    assert len(failure.message) < 5_000
    assert len(failure.param or "") <= 80


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
_FIELDS = st.sampled_from([*Recipe.model_fields, *Adapter.model_fields, "path", "sha256", "type", "epochs"])


@settings(deadline=None)
@given(st.text() | st.binary() | _JSON.map(json.dumps) | st.dictionaries(_FIELDS, _JSON).map(json.dumps))
@example("1" * 5_000)
@example("[" * 100_000)
@example('{"model": "\\ud800"}')
@example('{"seed": ' + "9" * 5_000 + "}")
def test_any_input_is_a_recipe_or_an_error(body: str | bytes) -> None:
    try:
        parse_recipe(body)
    except InputError as error:
        error.failure.model_dump_json()


def test_learning_rate_that_is_nan_is_refused() -> None:
    error = refusal('{"model": "m", "dataset": "d", "optimizer": {"learning_rate": NaN}}')
    assert error.failure.param == "optimizer.learning_rate"


def numbers(node: dict[str, Any], definitions: dict[str, Any], path: str = "") -> Iterator[str]:
    """The fields of a schema that take a number, as dotted paths."""
    node = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    if node.get("type") in ("integer", "number"):
        yield path
    for each in node.get("anyOf", []):
        yield from numbers(each, definitions, path)
    for name, inner in node.get("properties", {}).items():
        yield from numbers(inner, definitions, f"{path}.{name}" if path else name)
    for inner in node.get("patternProperties", {}).values():
        yield from numbers(inner, definitions, f"{path}.q_proj")


SCHEMA = Recipe.model_json_schema()
NUMBERS = sorted({*numbers(SCHEMA, SCHEMA["$defs"])} - {"scheduling.priority"})


def test_numbers_of_a_recipe_are_found() -> None:
    assert {"seed", "adapter.r", "adapter.rank_pattern.q_proj", "batch.micro_batch_size", "resources.gpus"} <= {
        *NUMBERS
    }


@pytest.mark.parametrize("field", NUMBERS)
def test_number_below_zero_is_refused_by_its_field(field: str) -> None:
    *sections, name = field.split(".")
    body: dict[str, Any] = {name: -1}
    for section in reversed(sections):
        body = {section: body}
    error = refusal(minimal(**body))
    assert error.failure.param == field.removesuffix(".q_proj")  # the name of a module is no field's
    assert "got -1" in error.failure.message


def test_every_schema_field_is_described() -> None:
    schema = Recipe.model_json_schema()
    assert schema["required"] == ["model", "dataset"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["model"]["description"]


@pytest.mark.parametrize(
    ("text", "param"),
    [
        ('{"model": "m", "dataset": "d.jsonl", "model": "n"}', "model"),
        ('{"model": "m", "dataset": "d.jsonl", "adapter": {"r": 8, "alpha": 8, "r": 8}}', "adapter.r"),
        (
            '{"model": "m", "dataset": {"path": "d", "columns": {"output": "a", "output": "b"}}}',
            "dataset.columns.output",
        ),
    ],
)
def test_field_given_twice_is_refused(text: str, param: str) -> None:
    failure = refusal(text).failure
    assert failure.param == param
    assert failure.message == f"{param}: given more than once in one object; give it once"
