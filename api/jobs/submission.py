"""Finds and reads everything that a recipe names, once. Checks, plans and new jobs share the result."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from api.context import Services
from api.datasets.reader import RowFile
from api.errors import TooManyRequests
from api.model_folders import ModelFolder, base_of
from api.tracking.checks import check_tracking
from contract.failure import FailureCode, InputError, dataset_errors_as
from contract.formatting import truncate
from contract.locate import locate_dataset
from contract.machine import Machine, check_machines, machine_warnings, machines_for
from contract.method import Learned
from contract.model.earlier_adapter import check_earlier_adapter
from contract.model.stored_bits import with_stored_bits
from contract.model.target_modules import describe_skipped
from contract.order import Workload, workload
from contract.recipe import DatasetSource, Recipe
from contract.shortfalls import shortfalls
from dataset.lengths import TokenLengths
from dataset.sandbox.child import SandboxLimitExceeded
from estimate.plan import LocalModel
from estimate.stored_base import describe_dequantised
from estimate.work import LengthCounts
from storage.backends import FolderStorage
from store import datasets
from store.access.principal import Principal
from store.earlier_adapter import earlier_adapter
from store.models import Dataset


@dataclass(frozen=True)
class Examples:
    """A dataset that a recipe names, with every row read."""

    dataset: DatasetSource
    """With its digest, and with the format and the columns that the dataset was uploaded with."""
    count: int
    dataset_id: str | None
    """None where the recipe names a file of the server."""
    file: RowFile


@dataclass(frozen=True)
class Submission:
    recipe: Recipe
    """With the digests of its datasets."""
    machines: Sequence[Machine]
    """Those of the workers."""
    model: ModelFolder | None
    """None where it is a hub's: then the trainer checks it, when it has the model."""
    earlier: Path | None
    """The folder of the adapter that it starts from."""
    training: Examples
    validation: Examples | None
    warnings: list[str]

    @property
    def workload(self) -> Workload:
        return workload(self.recipe, self.training.count)

    @property
    def base(self) -> LocalModel | str:
        """What an estimate needs of the model, or why that is not known."""
        return base_of(self.model, self.recipe.model, self.recipe.adapter, self.earlier)


@contextmanager
def resolved(services: Services, who: Principal, recipe: Recipe, machines: Sequence[Machine]) -> Iterator[Submission]:
    """The recipe with all that it names; `machines` are the workers'. Raises what Resolver.resolve does."""
    with ExitStack() as files:
        yield Resolver(services, who, machines, files).resolve(recipe)


class Resolver:
    """Finds and reads what recipes name, each model, dataset and earlier adapter once for all of them."""

    def __init__(self, services: Services, who: Principal, machines: Sequence[Machine], files: ExitStack) -> None:
        """`machines` are the workers'. What is fetched lasts as long as `files`."""
        self._services = services
        self._who = who
        self._machines = machines
        self._files = files
        self._models: dict[str, ModelFolder | None] = {}
        self._earlier: dict[str, Path] = {}
        self._read: dict[tuple[str, str, Learned], Examples] = {}
        """By the model's name, the dataset as JSON, and what the method learns of its rows."""

    def resolve(self, recipe: Recipe) -> Submission:
        """The recipe with all that it names. Raises InputError: no such file or folder, a bad row, unmatched modules,
        a row that the model cannot read. Raises TooManyRequests, StorageUnavailable."""
        machines = machines_for(recipe, self._machines)
        check_machines(recipe, machines)
        check_tracking(self._services, self._who, recipe.tracking)
        model = self._find_model(recipe.model)
        if model is not None:
            recipe = with_stored_bits(recipe, model.headers.loaded.trained_bits)
        earlier = self._fetch_earlier(recipe.adapter.start_from)
        about_model = _check_adapter(self._who, recipe, model, earlier)
        if model is not None:
            about_model += describe_dequantised(recipe, model.headers.loaded)
        training = self._examples(recipe, recipe.dataset)
        validation, evaluation = None, recipe.evaluation
        if evaluation.dataset is not None:
            with dataset_errors_as("evaluation.dataset"):
                validation = self._examples(recipe, evaluation.dataset)
            evaluation = evaluation.model_copy(update={"dataset": validation.dataset})
        recipe = recipe.model_copy(update={"dataset": training.dataset, "evaluation": evaluation})
        warnings = [*machine_warnings(recipe, machines), *shortfalls(recipe, training.count), *about_model]
        return Submission(recipe, machines, model, earlier, training, validation, warnings)

    def _find_model(self, name: str) -> ModelFolder | None:
        if name not in self._models:
            self._models[name] = self._services.models.find(name)
        return self._models[name]

    def _fetch_earlier(self, start_from: str | None) -> Path | None:
        if start_from is None:
            return None
        if start_from not in self._earlier:
            fetched = _earlier(self._services, self._who, start_from)
            self._earlier[start_from] = self._files.enter_context(fetched)
        return self._earlier[start_from]

    def _examples(self, recipe: Recipe, given: DatasetSource) -> Examples:
        learned = recipe.method.learns
        key = recipe.model, given.model_dump_json(), learned
        if key not in self._read:
            found = examples_of(self._services, self._who, given, learned)
            model = self._find_model(recipe.model)
            if model is not None:
                self._services.reader.try_examples(found.file, model, given.chat_template)
            self._read[key] = found
        return self._read[key]


@contextmanager
def _earlier(services: Services, who: Principal, start_from: str) -> Iterator[Path]:
    home = FolderStorage(services.settings.home)
    with tempfile.TemporaryDirectory(prefix="finetuned-") as fetched:
        folder = Path(fetched) / "adapter"
        yield earlier_adapter(services.sessions, services.storage, home, start_from, folder, who.scope)


def _check_adapter(who: Principal, recipe: Recipe, model: ModelFolder | None, earlier: Path | None) -> list[str]:
    """What target_modules matches and what gets no adapter, in words."""
    if model is None:
        return []
    headers = model.headers
    if earlier is not None:
        check_earlier_adapter(earlier, headers.loaded.shapes, recipe.model)
        return []
    return describe_skipped(headers.targets(recipe.adapter, who.owner))


def examples_of(services: Services, who: Principal, given: DatasetSource, learned: Learned) -> Examples:
    """A dataset that a recipe names, with every row read. Raises InputError, DatasetNotFound, TooManyRequests,
    StorageUnavailable."""
    reader = services.reader
    if not datasets.is_id(given.path):
        path = locate_dataset(given.path, services.settings.folders)
        name = given.filename or path.name
        file = RowFile(name, given.format, given.columns, learned, None, lambda: nullcontext(path))
        counted = reader.count(file)
        return _digested(given, file, counted.sha256, counted.examples, None)
    with services.sessions.begin() as session:
        dataset = datasets.get_for_recipe(session, given.path, who.scope)
    as_uploaded = given.format == "auto" and given.columns is None
    given = given.model_copy(update={"filename": dataset.filename})
    if as_uploaded:
        given = given.model_copy(update={"format": dataset.format or "auto", "columns": dataset.columns})
        if dataset.status == "error" and _is_checked_as(dataset, learned):
            message = f"dataset: {dataset.id} cannot be trained on: {dataset.status_details}"
            raise InputError(FailureCode.DATASET_INVALID, message, "dataset")
    opened = partial(datasets.local_file, services.storage, services.settings, dataset)
    file = RowFile(dataset.filename, given.format, given.columns, learned, None, opened)
    # Whether a file has both ratings is not part of the check.
    is_read = as_uploaded and learned != "ratings" and _is_checked_as(dataset, learned)
    if is_read and dataset.report is not None and dataset.sha256 is not None:
        # It was read when it came, and what lies under a digest does not change.
        datasets.check_bytes(services.storage, services.settings, dataset)
        return _digested(given, file, dataset.sha256, dataset.report["examples"], dataset.id)
    counted = reader.count(file)
    return _digested(given, file, counted.sha256, counted.examples, dataset.id)


def _is_checked_as(dataset: Dataset, learned: Learned) -> bool:
    """Whether the dataset's check found what the method learns, or no row that can be read."""
    return dataset.report is None or dataset.report.get("learned") in (None, learned)


def _digested(given: DatasetSource, file: RowFile, sha256: str, count: int, dataset_id: str | None) -> Examples:
    if given.sha256 not in (None, sha256):
        message = f"dataset.sha256: got {given.sha256}; the file {truncate(given.path, 200)} has {sha256}"
        raise InputError(FailureCode.DATASET_CHANGED, message, "dataset.sha256")
    digested = given.model_copy(update={"sha256": sha256})
    return Examples(digested, count, dataset_id, replace(file, sha256=sha256))


def lengths_of(services: Services, submission: Submission) -> LengthCounts | str:
    """How long the examples are by the model's own tokenizer and template, or why that is not known. Raises InputError
    for an example that these refuse."""
    model, training = submission.model, submission.training
    if model is None:
        return f"{submission.recipe.model} is not on the server, nor its tokenizer"
    try:
        found: TokenLengths = services.reader.measure(training.file, model, training.dataset.chat_template)
    except SandboxLimitExceeded as error:
        return error.failure.message
    except TooManyRequests:
        return "the service reads as many datasets as it can at once"
    if found.problems:
        raise InputError(FailureCode.DATASET_INVALID, found.problems[0].message, "dataset")
    return LengthCounts(found.longest, found.first, found.supervised / max(1, found.tokens), training.count)
