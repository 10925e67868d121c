"""Lays out an attempt's run folder: the recipe, with every input as a file of this machine."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from pydantic import ValidationError

from contract.failure import FailureCode, InputError, dataset_errors_as
from contract.locate import locate_model
from contract.machine import check_machine
from contract.recipe import Adapter, Batch, Evaluation, Recipe
from storage.backends import FolderStorage
from store import datasets
from store.earlier_adapter import earlier_adapter
from worker.attempt.context import Attempt


def lay_out(attempt: Attempt, files: ExitStack) -> Recipe:
    """Writes recipe.json for the trainer, with absolute paths, and returns the recipe as the owner wrote it.

    The datasets stay on this machine while `files` is open. Raises InputError when an input is gone or this machine
    cannot run the recipe, StorageUnavailable.
    """
    recipe = _read_recipe(attempt)
    check_machine(recipe, attempt.machine)
    attempt.run_dir.path.mkdir(parents=True)
    inputs = _Inputs(attempt, files, attempt.make_heartbeat())
    resolved = recipe.model_copy(
        update={
            "model": inputs.model(recipe.model),
            "dataset": recipe.dataset.model_copy(update={"path": inputs.dataset(recipe.dataset.path)}),
            "evaluation": inputs.evaluation(recipe.evaluation),
            "adapter": inputs.adapter(recipe.adapter),
        }
    )
    attempt.run_dir.recipe.write_text(resolved.model_dump_json(indent=2))
    return recipe


def _read_recipe(attempt: Attempt) -> Recipe:
    """The job's recipe, with the batch that an earlier attempt has found to fit."""
    try:
        recipe = Recipe.model_validate(attempt.part.recipe)
    except ValidationError as error:
        message = f"the recipe is of another release of this service; submit it anew: {error.errors()[0]['msg']}"
        raise InputError(FailureCode.RECIPE_INVALID, message) from error
    if attempt.part.batch is None:
        return recipe
    return recipe.model_copy(update={"batch": Batch.model_validate(attempt.part.batch)})


@dataclass(frozen=True)
class _Inputs:
    """Finds or fetches what a recipe names."""

    attempt: Attempt
    files: ExitStack
    heartbeat: Callable[[], None]

    def model(self, name: str) -> str:
        """The model's folder; the name itself if it is a hub's."""
        folder = locate_model(name, self.attempt.settings.folders)
        return str(folder) if folder else name

    def dataset(self, name: str) -> str:
        attempt = self.attempt
        found = datasets.find_file(attempt.sessions, attempt.settings, name, self.heartbeat)
        return str(self.files.enter_context(found))

    def evaluation(self, evaluation: Evaluation) -> Evaluation:
        given = evaluation.dataset
        if given is None:
            return evaluation
        with dataset_errors_as("evaluation.dataset"):
            path = self.dataset(given.path)
        return evaluation.model_copy(update={"dataset": given.model_copy(update={"path": path})})

    def adapter(self, adapter: Adapter) -> Adapter:
        if adapter.start_from is None:
            return adapter
        attempt = self.attempt
        folder = earlier_adapter(
            attempt.sessions,
            attempt.storage,
            FolderStorage(attempt.settings.home),
            adapter.start_from,
            attempt.run_dir.path / "start_from",
            heartbeat=self.heartbeat,
        )
        return adapter.model_copy(update={"start_from": str(folder)})
