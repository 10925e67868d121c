"""The service takes every recipe of examples/recipes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.settings import ApiSettings
from store.session import Sessions
from tests.support.api import serve
from tests.support.files import write_model

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "examples/recipes").iterdir())


@pytest.fixture
def client(settings: ApiSettings, sessions: Sessions) -> Iterator[TestClient]:
    """The API as `finetuned up` starts it at the top of the repository."""
    write_model(settings.models / "smollm2-135m-instruct")
    with serve(settings.model_copy(update={"allowed_paths": [ROOT]})) as client:
        yield client


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_among_the_examples_is_taken(path: Path, client: TestClient) -> None:
    answer = client.post("/jobs", content=path.read_bytes())
    assert answer.status_code == 201, answer.text
