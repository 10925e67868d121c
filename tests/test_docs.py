"""What the documents say of tests, fields, settings and examples is so."""

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from api.settings import ApiSettings
from contract.events import Event
from contract.recipe import Recipe
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
DOCS = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        "training",
        "adapters",
        "data",
        "parallel",
        "jobs",
        "deploy",
        "events",
        "artifacts",
        "webhooks",
        "observability",
        "plans",
        "datasets",
    )
]
TEXT = "".join(path.read_text() for path in DOCS)
TRAINING, ADAPTERS, _, PARALLEL, JOBS, DEPLOY, EVENTS, ARTIFACTS, *_others, DATASETS = (
    path.read_text() for path in DOCS
)
TABLES = TRAINING.partition("## Every part")[2] + ADAPTERS.partition("## Names by family")[0] + JOBS + ARTIFACTS
TABLES += DATASETS.partition("## What holds")[2]
ROWS = [row for rows in re.findall(r"^\| ---.*\n((?:\|.*\n)+)", TABLES, re.MULTILINE) for row in rows.splitlines()]
KINDS = [kind.model_fields["type"].default for kind in get_args(Event)]
NAMED: list[tuple[str, str]] = sorted(set(re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", TEXT)))


def fields(model: type[BaseModel]) -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        names.append(name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{each}" for each in fields(inner)]
    return names


def test_each_row_of_the_tables_names_a_test() -> None:
    assert len(ROWS) > 100
    assert [row for row in ROWS if "::test_" not in row.rpartition(" | ")[2]] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_named_test_is_there(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("field", fields(Recipe))
def test_recipe_field_is_documented(field: str) -> None:
    section, _, name = field.rpartition(".")
    # With its section's name, or after another field of it on the same line.
    assert re.search(rf"`{field}\b|`{section}\.\w+`[^\n]*`{name}\b", TEXT)


@pytest.mark.parametrize("field", sorted({*ApiSettings.model_fields, *WorkerSettings.model_fields}))
def test_setting_is_documented(field: str) -> None:
    assert f"`FINETUNED_{field.upper()}`" in DEPLOY.partition("## Settings")[2]


def test_each_tested_fault_is_documented() -> None:
    faults = re.findall(r"^def (test_\w+)", (ROOT / "tests/faults/test_faults.py").read_text(), re.MULTILINE)
    assert [name for name in faults if f"faults/test_faults.py::{name}`" not in JOBS] == []


@pytest.mark.parametrize("path", sorted((ROOT / "examples/recipes").iterdir()), ids=lambda path: path.name)
def test_example_recipe_is_documented(path: Path) -> None:
    assert f"(../examples/recipes/{path.name})" in TRAINING


def test_engine_example_uses_that_engine() -> None:
    rows = re.findall(r"^\| (.+?) \| .* \| `(\w+\.json)` \|$", PARALLEL, re.MULTILINE)
    assert len(rows) == 6
    for words, example in rows:
        parallel = Recipe.model_validate_json((ROOT / "examples/recipes" / example).read_bytes()).parallel
        engine, stage, flag = (
            re.search(word, words) for word in (r'"engine": "(\w+)"', r"\.\.\. `(\d)`", r"`(offload_\w+)`")
        )
        assert engine is None or parallel.engine == engine[1]
        assert stage is None or (parallel.engine, parallel.zero_stage) == ("deepspeed", int(stage[1]))
        assert flag is None or getattr(parallel, flag[1])


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda path: path.name,
)
def test_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("kind", sorted({*KINDS, "queue", "status", "retry"}))
def test_event_type_is_documented(kind: str) -> None:
    assert f"`{kind}`" in EVENTS.partition("## What there is")[2]
