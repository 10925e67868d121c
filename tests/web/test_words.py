"""What the API says in English has a Chinese text in the page: none can be forgotten."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode
from contract.recipe import Recipe
from store.scheduling.reasons import CODES

WORDS = Path(__file__).parents[2] / "web" / "src" / "words"
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def table(name: str) -> dict[str, Any]:
    found = json.loads((WORDS / name).read_text())
    assert isinstance(found, dict)
    return found


def help_paths(schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of all parts of a recipe that have a description."""
    for name, field in schema["properties"].items():
        inner = f"{path}.{name}".strip(".")
        objects = [
            found
            for part in (field, *field.get("anyOf", ()))
            if "properties" in (found := root["$defs"].get(part.get("$ref", "").rpartition("/")[2], {}))
        ]
        if field.get("description") or any(found.get("description") for found in objects):
            yield inner
        for found in objects:
            yield from help_paths(found, root, inner)


def test_every_field_of_a_recipe_has_chinese_help() -> None:
    schema = Recipe.model_json_schema()
    help_of = table("help.zh.json")
    # Both datasets have the same fields.
    assert set(help_of) == {re.sub(r"^evaluation\.(?=dataset\.)", "", path) for path in help_paths(schema, schema)}
    assert [path for path, text in help_of.items() if not CHINESE.search(text)] == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_failure_is_explained(language: str) -> None:
    explained = table(f"failures.{language}.json")
    assert set(explained) == set(FailureCode)
    assert all(set(each) == {"what", "do"} for each in explained.values())


def test_every_reason_of_waiting_has_a_chinese_sentence() -> None:
    reasons = table("reasons.zh.json")
    assert set(reasons) == set(CODES)
    assert [code for code, text in reasons.items() if not CHINESE.search(text)] == []
