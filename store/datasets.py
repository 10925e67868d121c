"""Queries on datasets, and access to their bytes.

A blob exists as long as a dataset refers to it. A transaction that adds such a dataset, or deletes the last one and the
bytes, locks the blob's row, so no dataset is left without bytes.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract import ids
from contract.failure import FailureCode, InputError
from contract.locate import locate_dataset
from contract.status import TERMINAL
from runtime.settings import StoreSettings
from storage.backends import Storage, make_storage
from storage.cache import acquire
from storage.errors import StorageUnavailable
from store.errors import DatasetInUse, DatasetNotFound
from store.models import Blob, Dataset, Job
from store.paging import newest_first
from store.session import Sessions

log = logging.getLogger(__name__)

_NEEDED_BY = or_(Job.training_file == Dataset.id, Job.validation_file == Dataset.id)


def is_id(text: str) -> bool:
    return ids.is_id(ids.DATASET, text)


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


@dataclass(frozen=True)
class Source:
    """Where the bytes of a dataset are: in the blob `sha256`, or at `path`."""

    bytes: int
    sha256: str | None = None
    path: str | None = None
    origin: str | None = None
    """Where they were fetched from, for display."""


def create(  # parameters: the columns of a row
    session: Session,
    owner: str,
    filename: str,
    source: Source,
    *,
    purpose: str = "fine-tune",
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    expires_after: timedelta | None = None,
) -> Dataset:
    """Creates a dataset, which is still to be checked. More than five parameters: the columns of the new row."""
    if source.sha256 is not None:
        _lock_blob(session, source.sha256, source.bytes)
    dataset = Dataset(
        id=ids.new_id(ids.DATASET),
        owner=owner,
        filename=filename,
        purpose=purpose,
        sha256=source.sha256,
        path=source.path,
        source=source.origin,
        bytes=source.bytes,
        status="uploaded",
        format=format,
        columns=dict(columns) if columns else None,
        expires_at=None if expires_after is None else func.now() + expires_after,
    )
    session.add(dataset)
    session.flush()
    session.refresh(dataset)
    return dataset


def _lock_blob(session: Session, sha256: str, size: int) -> None:
    """Makes sure that the blob's row exists, and keeps it until the transaction ends."""
    locked = select(Blob.sha256).where(Blob.sha256 == sha256).with_for_update(read=True, key_share=True)
    # An existing row may be deleted while this waits for its lock.
    while session.scalar(locked) is None:
        session.execute(insert(Blob).values(sha256=sha256, bytes=size).on_conflict_do_nothing())


def get(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """A dataset of `owner`, or of any owner with None. Raises DatasetNotFound."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or owner not in (None, dataset.owner):
        raise DatasetNotFound(dataset_id)
    return dataset


def list_datasets(
    session: Session,
    limit: int,
    after: str | None,
    owner: str | None = None,
    purpose: str | None = None,
) -> list[Dataset]:
    """One page of datasets, newest first; `after` is the last id of the page before. Raises DatasetNotFound for an
    unknown `after`."""
    query = select(Dataset)
    if owner is not None:
        query = query.where(Dataset.owner == owner)
    if purpose is not None:
        query = query.where(Dataset.purpose == purpose)
    last = None if after is None else get(session, after, owner)
    return list(session.scalars(newest_first(query, Dataset, limit, last)))


def list_unchecked(session: Session) -> list[str]:
    """The ids of datasets that are still to be checked, oldest first."""
    return list(session.scalars(select(Dataset.id).where(Dataset.status == "uploaded").order_by(Dataset.created_at)))


def list_expired(session: Session) -> list[str]:
    """The ids of datasets that have expired and that no unfinished job needs."""
    needed = select(Job.id).where(_NEEDED_BY, Job.status.not_in(TERMINAL)).exists()
    return list(session.scalars(select(Dataset.id).where(Dataset.expires_at < func.now(), ~needed)))


def record_check(  # parameters: the columns of a row
    session: Session,
    dataset_id: str,
    problem: str | None,
    format: str | None = None,
    rows: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Records the result of a check, unless another check was first; `problem` says why it cannot be trained on. Six
    parameters: the columns that a check finds."""
    values = {
        "status": "processed" if problem is None else "error",
        "status_details": problem,
        "format": func.coalesce(Dataset.format, format),
        "columns": func.coalesce(Dataset.columns, literal((report or {}).get("columns") or None, Dataset.columns.type)),
        "rows": rows,
        "report": None if report is None else dict(report),
    }
    unchecked = (Dataset.id == dataset_id, Dataset.status == "uploaded")
    session.execute(update(Dataset).where(*unchecked).values(values))


def lock(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """A dataset that cannot be deleted before the transaction ends. Raises DatasetNotFound."""
    lock = {"read": True, "key_share": True}
    dataset = session.get(Dataset, dataset_id, with_for_update=lock, populate_existing=True)
    if dataset is None or owner not in (None, dataset.owner):
        raise DatasetNotFound(dataset_id)
    return dataset


def remove(session: Session, dataset_id: str, owner: str | None) -> str | None:
    """Deletes a dataset and returns the digest of its blob, if it had one, for delete_unused_blob. Raises
    DatasetNotFound, DatasetInUse."""
    dataset = session.get(Dataset, dataset_id, with_for_update=True, populate_existing=True)
    if dataset is None or owner not in (None, dataset.owner):
        raise DatasetNotFound(dataset_id)
    needs = or_(Job.training_file == dataset_id, Job.validation_file == dataset_id)
    job_id = session.scalar(select(Job.id).where(needs, Job.status.not_in(TERMINAL)).limit(1))
    if job_id is not None:
        raise DatasetInUse(dataset_id, job_id)
    session.delete(dataset)
    session.flush()
    return dataset.sha256


def delete_unused_blob(session: Session, storage: Storage, sha256: str) -> bool:
    """Deletes the bytes of a blob if no dataset refers to it, and returns whether it did. The row stays locked during
    the deletion, also of an object in a bucket, so that no new dataset can refer to it. Raises StorageUnavailable."""
    session.execute(insert(Blob).values(sha256=sha256, bytes=0).on_conflict_do_nothing())
    session.execute(select(Blob.sha256).where(Blob.sha256 == sha256).with_for_update())
    if session.scalar(select(Dataset.id).where(Dataset.sha256 == sha256).limit(1)) is not None:
        return False
    storage.delete(blob_key(sha256))
    session.execute(delete(Blob).where(Blob.sha256 == sha256))
    return True


def get_for_recipe(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """The dataset that a recipe names. Raises InputError about the recipe's field `dataset`."""
    try:
        return get(session, dataset_id, owner)
    except DatasetNotFound as error:
        raise InputError(FailureCode.DATASET_NOT_FOUND, f"dataset: {error}", "dataset") from error


def local_file(
    storage: Storage, settings: StoreSettings, dataset: Dataset, heartbeat: Callable[[], None] = lambda: None
) -> AbstractContextManager[Path]:
    """A file of this machine with its bytes, for as long as the context lasts; `heartbeat` is called while it is
    fetched. Raises InputError where they are gone, StorageUnavailable: now, and not when the context is entered."""
    if dataset.path is not None:
        return nullcontext(locate_dataset(dataset.path, settings.folders))
    assert dataset.sha256 is not None, "a constraint of the table"
    key = blob_key(dataset.sha256)
    try:
        path = storage.local_path(key)
        if path is not None:
            return nullcontext(path)
        return acquire(storage, key, settings.fetched_datasets / dataset.sha256, heartbeat)
    except FileNotFoundError as error:
        raise bytes_missing(dataset) from error


def check_bytes(storage: Storage, settings: StoreSettings, dataset: Dataset) -> None:
    """Raises InputError where the bytes of an uploaded dataset are gone. It reads none of them. While a bucket is
    unavailable, nothing in it counts as gone."""
    assert dataset.sha256 is not None, "an uploaded dataset"
    if storage.remote and (settings.fetched_datasets / dataset.sha256).exists():
        return
    try:
        found = storage.exists(blob_key(dataset.sha256))
    except StorageUnavailable as error:
        log.warning("whether dataset %s still has its bytes is unknown: %s", dataset.id, error)
        return
    if not found:
        raise bytes_missing(dataset)


def bytes_missing(dataset: Dataset) -> InputError:
    message = f"dataset: the bytes of {dataset.id} are no longer in the storage; upload it again"
    return InputError(FailureCode.DATASET_NOT_FOUND, message, "dataset")


def find_file(
    sessions: Sessions, settings: StoreSettings, path: str, heartbeat: Callable[[], None] = lambda: None
) -> AbstractContextManager[Path]:
    """The file that a recipe's dataset.path names, a dataset by its id, or a path; as local_file gives it. Raises
    InputError, StorageUnavailable. No session is held when it looks into the storage."""
    if not is_id(path):
        return nullcontext(locate_dataset(path, settings.folders))
    with sessions.begin() as session:
        dataset = get_for_recipe(session, path)
    # Made here, because a bucket's threads do not survive a fork.
    return local_file(make_storage(settings), settings, dataset, heartbeat)
