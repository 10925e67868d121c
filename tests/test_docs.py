"""What the documents say of tests, fields and examples is so."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from contract.recipe import Recipe

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "docs" / name for name in ("training.md", "adapters.md", "data.md", "parallel.md")]
TEXT = "".join(path.read_text() for path in DOCS)
TRAINING = DOCS[0].read_text()
TABLES = TRAINING.partition("## Every part")[2] + DOCS[1].read_text().partition("## Names by family")[0]
ROWS = re.findall(r"^\| (?!---|The recipe says|What holds|recipe).* \| (.*?) \|$", TABLES, re.MULTILINE)
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
    assert len(ROWS) > 60
    assert [row for row in ROWS if "::test_" not in row] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_is_named_is_there(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


@pytest.mark.parametrize("field", fields(Recipe))
def test_a_field_of_the_recipe_is_told_of(field: str) -> None:
    section, _, name = field.rpartition(".")
    # With its section's name, or after another field of it on the same line.
    assert re.search(rf"`{field}\b|`{section}\.\w+`[^\n]*`{name}\b", TEXT)


@pytest.mark.parametrize("path", sorted((ROOT / "examples/recipes").iterdir()), ids=lambda path: path.name)
def test_an_example_is_told_of(path: Path) -> None:
    assert f"(../examples/recipes/{path.name})" in TRAINING


@pytest.mark.parametrize("path", [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_a_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
