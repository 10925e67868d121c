import json
from typing import Any

import pytest

from contract.failure import Failure, InputError
from contract.recipe import DatasetSource
from contract.recipe_errors import parse_recipe


def refusal(**dataset: Any) -> Failure:
    with pytest.raises(InputError) as caught:
        parse_recipe(json.dumps({"model": "m", "dataset": {"path": "d", **dataset}}))
    return caught.value.failure


def test_recipe_names_the_format_and_the_columns() -> None:
    dataset = {"path": "faq.csv", "format": "alpaca", "columns": {"instruction": "question"}}
    recipe = parse_recipe(json.dumps({"model": "m", "dataset": dataset}))
    assert recipe.dataset == DatasetSource(path="faq.csv", format="alpaca", columns={"instruction": "question"})


def test_unknown_format_is_told_the_known_ones() -> None:
    failure = refusal(format="alpacca")
    assert failure.param == "dataset.format"
    assert '"alpaca"' in failure.message
    assert '"self_instruct"' in failure.message


def test_unknown_field_is_told_the_known_ones() -> None:
    failure = refusal(columns={"instructoin": "question"})
    assert failure.param == "dataset.columns"
    assert '"instructoin"' in failure.message
    assert "'instruction'" in failure.message


@pytest.mark.parametrize("columns", [{}, [], "question", {"instruction": 3}, {"instruction": ""}])
def test_columns_are_names_for_names(columns: Any) -> None:
    assert refusal(columns=columns).param == "dataset.columns"
