"""The pages agree with the code, with each other, and with the tests that hold their promises."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import typer
from pydantic import BaseModel

from api.settings import ApiSettings
from contract.events import Event
from contract.recipe import Recipe
from docs.site import api_reference, guarantees
from finetuned.cli.main import app
from tests.finetuned.command_line import parse_command
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GUIDES = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "guarantees.md"]
TEXT = "".join(path.read_text() for path in GUIDES)
PROMISES = [promise for section in guarantees.read_promises().values() for promise in section]
NAMED = {name for section in guarantees.read_promises().values() for names in section.values() for name in names}
KINDS = [kind.model_fields["type"].default for kind in get_args(Event)]
TRANSLATED = [(ROOT / name, ROOT / name.replace(".md", ".zh-CN.md")) for name in ("README.md", "docs/tutorial.md")]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def fields(model: type[BaseModel]) -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        names.append(name)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{each}" for each in fields(inner)]
    return names


def code(text: str) -> list[str]:
    """The lines of all code blocks, without comments, whose language differs."""
    lines: list[str] = []
    for index, part in enumerate(re.split(r"^```", text, flags=re.MULTILINE)):
        _, *rest = part.splitlines() or [""]
        lines += rest if index % 2 else [line for line in rest if line.startswith("    ")]
    return [bare for line in lines if (bare := re.sub(r"(^|\s+)# .*", "", line).strip())]


def commands(path: Path) -> list[str]:
    lines = re.findall(r"^(?:    |\$ )((?:[A-Z_]+=\S+ )?finetuned .*)$", path.read_text(), re.MULTILINE)
    return [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in lines]


def test_guarantees_page_is_current() -> None:
    assert guarantees.main(check=True) is None


def test_guarantee_without_test_or_with_unknown_test_is_refused() -> None:
    wrong = list(guarantees.faults({"Section": {"A": [], "B": ["test_gone"]}}, {"test_there": ["tests/test_it.py"]}))
    assert len(wrong) == 2
    assert "test_gone" in wrong[1]


@pytest.mark.parametrize("field", fields(Recipe))
def test_recipe_field_has_a_guarantee(field: str) -> None:
    # A section without a promise of its own has one for each of its fields, which are in this list too.
    assert any(re.search(rf"`{field}[`.]", promise) for promise in PROMISES)


@pytest.mark.parametrize("path", sorted((ROOT / "tests/faults").glob("test_*.py")), ids=lambda path: path.stem)
def test_fault_is_a_guarantee(path: Path) -> None:
    faults = re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    assert [name for name in faults if name not in NAMED] == []


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "README.zh-CN.md", *GUIDES], ids=lambda path: path.name)
def test_guide_names_no_test(path: Path) -> None:
    assert re.findall(r"\btest_\w+", path.read_text()) == []


@pytest.mark.parametrize("field", fields(Recipe))
def test_recipe_field_is_documented(field: str) -> None:
    section, _, name = field.rpartition(".")
    # With its section's name, or after another field of it on the same line.
    assert re.search(rf"`{field}\b|`{section}\.\w+`[^\n]*`{name}\b", TEXT)


@pytest.mark.parametrize("field", sorted({*ApiSettings.model_fields, *WorkerSettings.model_fields}))
def test_setting_is_documented(field: str) -> None:
    assert f"`FINETUNED_{field.upper()}`" in page("deploy.md").partition("## Settings")[2]


@pytest.mark.parametrize("kind", sorted({*KINDS, "queue", "status", "retry"}))
def test_event_is_documented(kind: str) -> None:
    assert f"`{kind}`" in page("events.md").partition("## Types")[2]


@pytest.mark.parametrize("path", sorted((ROOT / "examples/recipes").iterdir()), ids=lambda path: path.name)
def test_example_recipe_is_documented(path: Path) -> None:
    assert f"(../examples/recipes/{path.name})" in page("training.md")


def test_example_of_an_engine_uses_that_engine() -> None:
    rows = re.findall(r"^\| (.+?) \| .* \| `(\w+\.json)` \|$", page("parallel.md"), re.MULTILINE)
    assert len(rows) == 6
    for words, example in rows:
        parallel = Recipe.model_validate_json((ROOT / "examples/recipes" / example).read_bytes()).parallel
        engine, stage, flag = (
            re.search(word, words) for word in (r'"engine": "(\w+)"', r"\.\.\. `(\d)`", r"`(offload_\w+)`")
        )
        assert engine is None or parallel.engine == engine[1]
        assert stage is None or (parallel.engine, parallel.zero_stage) == ("deepspeed", int(stage[1]))
        assert flag is None or getattr(parallel, flag[1])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", [path for path in PAGES if commands(path)], ids=lambda path: path.name)
def test_printed_commands_exist(path: Path) -> None:
    for line in commands(path):
        parse_command(typer.main.get_command(app), shlex.split(line, comments=True)[1:])


def test_unknown_command_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parse_command(typer.main.get_command(app), ["submit", "recipe.json", "--wait"])


def test_api_reference_has_every_route_and_schema() -> None:
    described, reference = api_reference.describe_api(), api_reference.render()
    routes = [f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods]
    assert [each for each in routes if f"### `{each}`\n" not in reference] == []
    assert [name for name in described["components"]["schemas"] if f"### {name}\n" not in reference] == []
    assert "| `batch.max_length` |" in reference  # of the recipe, which stands in its routes


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


@pytest.mark.parametrize(("english", "chinese"), TRANSLATED, ids=lambda path: path.name)
def test_languages_are_in_step(english: Path, chinese: Path) -> None:
    ours, theirs = english.read_text(), chinese.read_text()
    for pattern in (r"^(?:\d+\.|-) (?=\S)", r"^\|(?= )", r"^!\["):
        assert len(re.findall(pattern, ours, re.MULTILINE)) == len(re.findall(pattern, theirs, re.MULTILINE)), pattern
    assert re.findall(r"^#+(?= )", ours, re.MULTILINE) == re.findall(r"^#+(?= )", theirs, re.MULTILINE)
    assert code(ours) == code(theirs)


def test_changelog_has_the_sections_of_keep_a_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (.*)$", version, re.MULTILINE)
        assert set(sections) <= set(order)
        assert all(order.index(first) < order.index(second) for first, second in pairwise(sections))
