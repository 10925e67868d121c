"""Lists, deletes and hands out datasets."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from api.background.checks import FILE_VERSION, file_version
from api.context import Services
from api.http.ranges import Content
from contract.failure import FailureCode, InputError
from contract.locate import locate_dataset
from store import datasets
from store.access import audit
from store.access.principal import Principal
from store.models import Dataset
from store.paging import Page, page


def list_datasets(
    services: Services, who: Principal, limit: int, after: str | None, owner: str | None
) -> Page[Dataset]:
    """Those of `owner`, where an admin asks for them. Raises DatasetNotFound for an unknown `after`."""
    with services.sessions.begin() as session:
        return page(datasets.list_datasets(session, limit + 1, after, who.scope or owner), limit)


def get_dataset(services: Services, who: Principal, dataset_id: str) -> Dataset:
    """Raises DatasetNotFound."""
    with services.sessions.begin() as session:
        return datasets.get(session, dataset_id, who.scope)


def delete_dataset(services: Services, who: Principal, dataset_id: str) -> None:
    """Deletes its bytes too, where no other dataset has them. Raises DatasetNotFound, DatasetInUse,
    StorageUnavailable."""
    with services.sessions.begin() as session:
        sha256 = datasets.remove(session, dataset_id, who.scope)
        audit.record(session, who, "dataset.delete", dataset_id)
        if sha256 is not None and datasets.delete_unused_blob(session, services.storage, sha256):
            (services.settings.fetched_datasets / sha256).unlink(missing_ok=True)


def content(services: Services, who: Principal, dataset_id: str) -> Content:
    """Its bytes as they were uploaded, or as the operator's file has them where that was read as data. Raises
    DatasetNotFound, InputError; its `read` raises StorageUnavailable."""
    dataset = get_dataset(services, who, dataset_id)
    name, media_type = dataset.filename, "application/octet-stream"
    if dataset.sha256 is not None:
        key = datasets.blob_key(dataset.sha256)
        if not services.storage.exists(key):
            raise datasets.bytes_missing(dataset)
        return Content(dataset.bytes, dataset.sha256, name, media_type, partial(services.storage.read, key))
    assert dataset.path is not None, "the table wants one of both"
    path = locate_dataset(dataset.path, services.settings.folders)
    status = path.stat()
    _refuse_what_is_no_data(dataset, file_version(status))
    return Content(status.st_size, file_version(status), name, media_type, partial(_pieces, dataset.id, path, status))


def _refuse_what_is_no_data(dataset: Dataset, version: str) -> None:
    """A file of the server may be anything until it was read. Raises InputError."""
    if dataset.status == "uploaded":
        message = f"dataset: {dataset.id} is still being checked; ask again"
        raise InputError(FailureCode.DATASET_INVALID, message, "dataset")
    if dataset.status != "processed" or dataset.report is None:
        message = f"dataset: {dataset.id} is a file of the server that cannot be read as data: {dataset.status_details}"
        raise InputError(FailureCode.DATASET_INVALID, message, "dataset")
    if dataset.report.get(FILE_VERSION) != version:
        raise _changed(dataset.id)


def _changed(dataset_id: str) -> InputError:
    message = f"dataset: the file of {dataset_id} was written since it was checked; register it again"
    return InputError(FailureCode.DATASET_CHANGED, message, "dataset")


def _pieces(dataset_id: str, path: Path, checked: os.stat_result, start: int, end: int) -> Iterator[bytes]:
    """Raises InputError where another file has taken the place of the one that was checked."""
    with path.open("rb", buffering=0) as file:
        if not os.path.samestat(os.fstat(file.fileno()), checked):
            raise _changed(dataset_id)
        file.seek(start)
        while start < end and (piece := file.read(min(end - start, 1 << 20))):
            start += len(piece)
            yield piece
