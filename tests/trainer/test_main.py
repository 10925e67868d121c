"""What the trainer's command does before anything is loaded."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.failure import FailureCode, InputError
from contract.recipe import Recipe
from tests.trainer.conftest import Outcome, command
from trainer.__main__ import resolve


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))  # resolve sets it
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def resolved(recipe: dict[str, Any], **changes: str) -> Recipe:
    return resolve(Recipe.model_validate(recipe | changes))


def test_absolute_paths_are_taken_as_they_are(recipe: dict[str, Any], model: Path, dataset: Path) -> None:
    ready = resolved(recipe)
    assert (ready.model, ready.dataset.path) == (str(model), str(dataset))


def test_relative_paths_are_looked_for_in_the_working_folder_and_models_also_in_its_models(
    recipe: dict[str, Any], model: Path, dataset: Path, working_folder: Path
) -> None:
    (working_folder / "models").mkdir()
    model.rename(working_folder / "models" / "tiny")
    try:
        dataset.rename(working_folder / "rows.jsonl")
        ready = resolved(recipe, model="tiny", dataset="rows.jsonl")
    finally:
        (working_folder / "models" / "tiny").rename(model)
    assert (ready.model, ready.dataset.path) == (
        str(working_folder / "models" / "tiny"),
        str(working_folder / "rows.jsonl"),
    )


def test_a_relative_path_is_not_looked_for_below_the_root(recipe: dict[str, Any], model: Path, dataset: Path) -> None:
    with pytest.raises(InputError) as refusal:
        resolved(recipe, model=str(model.relative_to("/")))
    assert refusal.value.failure.code == FailureCode.MODEL_NOT_FOUND
    with pytest.raises(InputError) as refusal:
        resolved(recipe, dataset=str(dataset.relative_to("/")))
    assert refusal.value.failure.code == FailureCode.DATASET_NOT_FOUND


@pytest.mark.parametrize("left", ["adapter", "checkpoints", "events.jsonl", "error.json"])
def test_a_folder_with_an_earlier_run_in_it_is_refused_and_left_as_it_is(
    left: str, recipe: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / left).touch()
    result = subprocess.run(command(folder), capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"{left} of an earlier run" in result.stderr
    assert "a folder of its own" in result.stderr
    assert sorted(file.name for file in folder.iterdir()) == sorted(["recipe.json", left])


def test_a_folder_without_a_recipe_is_told_in_a_line(tmp_path: Path) -> None:
    result = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr == f"trainer: no recipe.json in {tmp_path}\n"


def test_a_model_that_cannot_be_loaded_is_told_at_once_also_while_a_long_dataset_is_read(
    recipe: dict[str, Any], model: Path, long_dataset: Path, tmp_path: Path, run_trainer: Callable[..., Outcome]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).symlink_to(file)
    (broken / "config.json").unlink()
    (broken / "config.json").write_text('{"model_type": "unheard_of"}')
    outcome = run_trainer(recipe | {"model": str(broken), "dataset": str(long_dataset)}, timeout=25)
    assert outcome.exit_code == 1
    assert outcome.failure.code == FailureCode.MODEL_UNSUPPORTED
    assert "unheard_of" in outcome.failure.message
