"""Training reads a file for the recipe's method, and keeps its tokens under a key of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from contract.failure import InputError
from contract.recipe import Recipe
from tests.support.files import write_model
from trainer.data.examples import load_data

ROWS = [{"prompt": "hi", "completion": "hello", "label": label} for label in (1, 0)]


def recipe_for(folder: Path, method: str, rows: list[Any]) -> Recipe:
    write_model(folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": str(folder / "model"), "dataset": {"path": str(folder / "rows.jsonl")}, "method": method}
    return Recipe.model_validate(given)


def test_method_is_part_of_the_cache_key(tmp_path: Path) -> None:
    for method in ("sft", "kto", "sft"):
        load_data(recipe_for(tmp_path, method, ROWS), tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 2


PAIR = {"prompt": "hi", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("method", "rows", "problem"),
    [("dpo", ROWS, "has no pair of answers"), ("simpo", ROWS, "has no pair of answers"), ("sft", [PAIR], "chosen is ")],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, method: str, rows: list[Any], problem: str) -> None:
    recipe = recipe_for(tmp_path, method, rows)
    with pytest.raises(InputError, match=f"row 1: {problem}"):
        load_data(recipe, tmp_path / "cache")
