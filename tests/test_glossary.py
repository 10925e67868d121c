"""Whoever meets a word on the wire finds it in the glossary, or knows it anyway."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from contract.events import Event
from contract.recipe import Recipe
from contract.renamed import RENAMED
from contract.status import JobStatus, RequestedAction
from tests.support.api import description

ROOT = Path(__file__).parents[1]
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
TERMS = {term.lower() for bold in re.findall(r"\*\*(.+?)\*\*", GLOSSARY) for term in bold.split(", ")}

_ORDINARY = """
    accept action address admin after allow anchor answer answers as at available bad base before best bias bits
    buffers by bytes characters chat columns command complete completed cores count cpu created data deleted
    delivered details disk duplicate duplicates early effective empty enabled end ended error errors estimated every
    exception expected expires fields file filename files final fine finish finished fits force format fraction from
    full generated has histogram id identical index integrations job keep kept killed kind last left length level limit
    limits
    loaded location log longest max mean measured memory message method minutes model module modules more multiplier
    name
    names next not number object of offset order organization other out own owned owners parallel path pattern per
    percentiles pid plus position problem problems processes progress purpose rate ratio refused report request
    requested resources response result resumed revoked rows running save scale scheduling second seconds secret
    seen sequence since size skipped source stage start started steps stop stopped stored suffix tail target text
    texts time to torch total train trainable trained training tuned tuning type unknown unused updated url used
    username valid versions warnings without work x
"""
ORDINARY = {*_ORDINARY.split()}
"""English that says by itself what it means here, and what every program calls so."""
ABBREVIATIONS = {
    **{"grad": "gradients", "gpus": "device", "lora": "lora", "rslora": "rslora", "dora": "dora", "eta": "eta"},
    **{"eval": "evaluation", "n": "number", "r": "rank", "seq": "sequence", "uuid": "id", "sha256": "sha256"},
    **{"dpo": "method", "reinforcement": "method", "stainless": "request", "compile": "cold", "init": "start"},
}
"""Parts of names as the field writes them, and what explains them."""
OLD = {"wish", "kill", "step_aside", "place", "why", "starts_at", "share", "receipt", "held", "holders", "asked"}
OLD |= {"changes", "exchange", "still_at_work", "in_use", "tries", "others", "retry_can_help", "examples_per_step"}
OLD |= {name for old in RENAMED for name in old.split(".")[1:]} | {"effective_batch"}


def found(schema: Any, keyword: str) -> Iterator[Any]:
    """Every value of the keyword, however deep."""
    if isinstance(schema, dict):
        if keyword in schema:
            yield schema[keyword]
        for inner in schema.values():
            yield from found(inner, keyword)
    elif isinstance(schema, list):
        for inner in schema:
            yield from found(inner, keyword)


def names() -> set[str]:
    """Of fields and parameters, wherever they cross the wire."""
    schemas = [description(), Recipe.model_json_schema(), *(kind.model_json_schema() for kind in get_args(Event))]
    properties = {name for fields in found(schemas, "properties") if isinstance(fields, dict) for name in fields}
    parameters = {each["name"] for some in found(schemas, "parameters") if isinstance(some, list) for each in some}
    return properties | parameters


def values() -> set[str]:
    """Words for programs: members of enums and constants."""
    schemas = [description(), Recipe.model_json_schema(), *(kind.model_json_schema() for kind in get_args(Event))]
    enums = {value for members in found(schemas, "enum") if isinstance(members, list) for value in members}
    return {str(value) for value in enums | {value for value in found(schemas, "const") if isinstance(value, str)}}


def plural(word: str) -> set[str]:
    return {word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y", f"{word}s"}


KNOWN = ORDINARY | {part for term in TERMS for part in re.split(r"[\s-]+", term)}


@pytest.mark.parametrize("name", sorted(names()))
def test_name_on_the_wire_is_explained(name: str) -> None:
    parts = re.findall(r"[a-z]+\d*", name.lower())
    unknown = [part for part in parts if not plural(ABBREVIATIONS.get(part, part)) & KNOWN]
    assert unknown == [], "give it a line in docs/glossary.md, or choose a word that needs none"


EVENTS = [kind.model_fields["type"].default for kind in get_args(Event)]


@pytest.mark.parametrize("term", [*JobStatus, *RequestedAction, *EVENTS])
def test_word_for_a_state_action_or_event_has_a_line(term: str) -> None:
    assert term.replace("_", " ") in TERMS


def test_no_old_name_is_left_on_the_wire() -> None:
    assert (names() | values()) & OLD == set()


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda page: page.name
)
def test_page_uses_no_old_name(page: Path) -> None:
    quoted = re.findall(r'"(\w+)"\s*:|`(?:\w+\.)?(\w+)`', page.read_text())
    assert {name for pair in quoted for name in pair} & OLD == set()


@pytest.mark.parametrize("path", sorted((ROOT / "examples/recipes").glob("*.json")), ids=lambda path: path.name)
def test_example_recipe_uses_todays_names(path: Path) -> None:
    Recipe.model_validate(json.loads(path.read_text()))


def test_terms_have_one_line_each() -> None:
    lines = [line for line in GLOSSARY.splitlines() if line.startswith("- ")]
    assert all(re.match(r"- \*\*.+?\*\*: .+\.$", line) for line in lines)
    bold = [term.lower() for line in lines for term in re.findall(r"\*\*(.+?)\*\*", line)]
    assert len({*bold}) == len(bold)
