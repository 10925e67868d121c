"""Reads the examples that a recipe names, before anything is queued."""

from dataclasses import dataclass
from pathlib import Path

from api.looks import look
from api.settings import ApiSettings
from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset
from contract.quote import cut
from contract.recipe import Dataset as DatasetOfRecipe
from dataset.read import Counted, count_examples
from dataset.reading.files import is_light
from dataset.sandbox import DatasetSandbox
from storage.backends import Storage
from store import datasets
from store.access.principal import Principal
from store.models import Dataset
from store.session import Sessions

_LONGEST = 3600.0
"""Seconds; some 60 MB a second are read."""


@dataclass(frozen=True)
class Examples:
    dataset: DatasetOfRecipe
    """With its digest, and with the format and the columns that the dataset was uploaded with."""
    count: int
    file_id: str | None
    """The dataset's id, where the recipe names one."""


def examples_of(
    sessions: Sessions,
    settings: ApiSettings,
    storage: Storage,
    sandbox: DatasetSandbox,
    who: Principal,
    given: DatasetOfRecipe,
) -> Examples:
    """Raises InputError (no such file or dataset, a bad row, another digest), TooManyRequests, StorageUnavailable."""
    if not datasets.is_id(given.path):
        return _read(locate_dataset(given.path, settings.folders), settings, sandbox, given, None)
    with sessions.begin() as session:
        dataset = datasets.locate(session, given.path, who.scope)
    own = given.format == "auto" and given.columns is None
    given = given.model_copy(update={"filename": dataset.filename})
    if own:
        given = given.model_copy(update={"format": dataset.format or "auto", "columns": dataset.columns})
        if dataset.status == "error":
            message = f"dataset: {dataset.id} cannot be trained on: {dataset.status_details}"
            raise InputError(FailureReason.DATASET_INVALID, message, "dataset")
    if own and dataset.report is not None and dataset.sha256 is not None:
        # It was read when it came, and what lies under a digest does not change.
        return _digested(given, dataset.sha256, dataset.report["examples"], dataset.id)
    with datasets.local_file(storage, settings, dataset) as path:
        return _read(path, settings, sandbox, given, dataset)


def _read(
    path: Path, settings: ApiSettings, sandbox: DatasetSandbox, given: DatasetOfRecipe, dataset: Dataset | None
) -> Examples:
    name = given.filename or path.name
    largest = settings.largest_dataset
    if is_light(path):
        counted = count_examples(path, name, given.format, given.columns, largest)
    else:
        # Not here: one array of JSON takes gigabytes, and what Arrow takes to decode Parquet nobody bounds.
        asked = {"name": name, "format": given.format, "columns": given.columns, "largest": largest}
        counted = Counted.model_validate(look(sandbox, "count", _LONGEST, path=str(path), **asked))
    return _digested(given, counted.sha256, counted.examples, dataset.id if dataset else None)


def _digested(given: DatasetOfRecipe, sha256: str, count: int, file_id: str | None) -> Examples:
    if given.sha256 not in (None, sha256):
        message = f"dataset.sha256: got {given.sha256}; the file {cut(given.path, 200)} has {sha256}"
        raise InputError(FailureReason.DATASET_CHANGED, message, "dataset.sha256")
    return Examples(given.model_copy(update={"sha256": sha256}), count, file_id)
