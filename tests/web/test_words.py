"""What the API says in English has a Chinese text in the page: none can be forgotten."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from contract import events
from contract.export import ExportFormat
from contract.failure import FailureCode
from contract.recipe import Recipe
from store import artifacts
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


EVENTS = get_args(events.Event)
OF_THE_SERVICE = {"status", "retry", "queue"}
"""Types of the events that the service adds to those of the trainer."""


def test_every_event_has_a_chinese_name() -> None:
    types = {each.model_fields["type"].default for each in EVENTS} | OF_THE_SERVICE
    terms = table("terms.zh.json")
    assert set(terms["events"]) == types
    fields = {name for each in EVENTS for name in each.model_fields} - {"type", "time"}
    assert fields <= set(terms["fields"])
    assert set(terms["kinds"]) == {
        "adapter",
        "checkpoint",
        "evaluation",
        "log",
        *artifacts.REPORT,
        *get_args(ExportFormat),
    }
    texts = {text for names in terms.values() for text in names.values()}
    assert [text for text in texts if not CHINESE.search(text)] == []


def test_page_listens_to_every_event() -> None:
    listened = re.search(r"const EVENTS = (\[.*\]);", (WORDS.parent / "live" / "curves.ts").read_text())
    assert listened is not None
    assert set(json.loads(listened[1])) == {each.model_fields["type"].default for each in EVENTS} | OF_THE_SERVICE


SAME = {"evaluations.rouge_l", "digest", "plan.of", "memory.logits", "webhooks", "chat.top_p"}
"""What is called alike in both languages."""


def test_no_chinese_text_is_english() -> None:
    text = (WORDS / "zh.ts").read_text()
    words = dict(re.findall(r'^  "?([\w.]+)"?: "(.*)",$', text, re.M))
    assert len(words) > 400
    assert {name for name, each in words.items() if not CHINESE.search(each)} == SAME
