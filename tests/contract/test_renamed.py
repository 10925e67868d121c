import importlib
import json

import pytest

from contract.failure import InputError
from contract.recipe import Recipe
from contract.recipe_errors import read_recipe
from contract.renamed import RENAMED

MIGRATION = importlib.import_module("migrations.versions.20261129_vocabulary")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_old_field_name_is_refused_with_the_new_one(old: str, new: str) -> None:
    section, name = old.split(".")
    body = {"model": "m", "dataset": "d", section: {name: 1}}
    with pytest.raises(InputError) as caught:
        read_recipe(json.dumps(body))
    failure = caught.value.failure
    assert (failure.message, failure.param) == (f"{old}: unknown field; it is now {new}", old)


@pytest.mark.parametrize("new", RENAMED.values())
def test_new_field_name_is_in_the_recipe(new: str) -> None:
    section, name = new.split(".")
    assert name in type(getattr(Recipe(model="m", dataset="d"), section)).model_fields  # type: ignore[arg-type]


def test_migration_renames_the_same_fields() -> None:
    sections = MIGRATION.RECIPE.items()
    assert {f"{at}.{old}": f"{at}.{new}" for at, names in sections for old, new in names.items()} == dict(RENAMED)
