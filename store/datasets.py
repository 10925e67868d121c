"""The queries on datasets, and where their bytes are.

A blob is kept as long as a dataset has it. Whoever adds one to a blob holds the blob's row, and so does whoever takes
the last away, with its bytes: so no dataset is left without them.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, literal, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.failure import FailureCode, InputError
from contract.locate import locate_dataset
from contract.status import TERMINAL
from runtime.settings import StoreSettings
from storage.backends import Storage, make_storage
from storage.cache import borrow
from store.errors import DatasetInUse, DatasetNotFound
from store.models import Blob, Dataset, Job
from store.session import Sessions

_ID = re.compile(r"file-[0-9a-f]{24}")


_NEEDED_BY = or_(Job.training_file == Dataset.id, Job.validation_file == Dataset.id)


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def blob_key(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


@dataclass(frozen=True)
class Source:
    """Of a dataset's bytes: either `sha256`, of a blob that is in the storage, or `path`."""

    bytes: int
    sha256: str | None = None
    path: str | None = None
    origin: str | None = None
    """Where they were fetched from, for people."""


def create(
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
    """A new dataset, to be checked."""
    if source.sha256 is not None:
        _hold_blob(session, source.sha256, source.bytes)
    dataset = Dataset(
        id=f"file-{secrets.token_hex(12)}",
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


def _hold_blob(session: Session, sha256: str, size: int) -> None:
    """Its row is there, and stays until the transaction ends."""
    held = select(Blob.sha256).where(Blob.sha256 == sha256).with_for_update(read=True, key_share=True)
    # One that was there may have gone while this waited for it.
    while session.scalar(held) is None:
        session.execute(insert(Blob).values(sha256=sha256, bytes=size).on_conflict_do_nothing())


def get(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """Whoever's it is, or that of `owner` alone. Raises DatasetNotFound."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or owner not in (None, dataset.owner):
        raise DatasetNotFound(dataset_id)
    return dataset


def newest(
    session: Session,
    limit: int,
    after: str | None,
    owner: str | None = None,
    purpose: str | None = None,
) -> list[Dataset]:
    """Newest first; `after` is the last id of the page before. Raises DatasetNotFound for an unknown `after`."""
    query = select(Dataset).order_by(Dataset.created_at.desc(), Dataset.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(Dataset.owner == owner)
    if purpose is not None:
        query = query.where(Dataset.purpose == purpose)
    if after is not None:
        last = get(session, after, owner)
        query = query.where(tuple_(Dataset.created_at, Dataset.id) < (last.created_at, last.id))
    return list(session.scalars(query))


def unchecked(session: Session) -> list[str]:
    """The oldest first."""
    return list(session.scalars(select(Dataset.id).where(Dataset.status == "uploaded").order_by(Dataset.created_at)))


def expired(session: Session) -> list[str]:
    """Those whose time is over, and that no unfinished job needs."""
    needed = select(Job.id).where(_NEEDED_BY, Job.status.not_in(TERMINAL)).exists()
    return list(session.scalars(select(Dataset.id).where(Dataset.expires_at < func.now(), ~needed)))


def checked(
    session: Session,
    dataset_id: str,
    problem: str | None,
    format: str | None = None,
    rows: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> None:
    """Writes what the check has found, unless another was first; `problem` where it cannot be trained on."""
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


def hold(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """As get, and it is not deleted before the transaction ends. Raises DatasetNotFound."""
    lock = {"read": True, "key_share": True}
    dataset = session.get(Dataset, dataset_id, with_for_update=lock, populate_existing=True)
    if dataset is None or owner not in (None, dataset.owner):
        raise DatasetNotFound(dataset_id)
    return dataset


def remove(session: Session, dataset_id: str, owner: str | None) -> str | None:
    """The digest of the blob that it had, where it had one: see forget_unused. Raises DatasetNotFound, DatasetInUse."""
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


def forget_unused(session: Session, storage: Storage, sha256: str) -> bool:
    """Deletes the bytes of a blob that no dataset has, and says whether. Nobody can count on them meanwhile: that is
    why the row is held while one object is deleted, in a bucket too. Raises StorageUnavailable."""
    session.execute(insert(Blob).values(sha256=sha256, bytes=0).on_conflict_do_nothing())
    session.execute(select(Blob.sha256).where(Blob.sha256 == sha256).with_for_update())
    if session.scalar(select(Dataset.id).where(Dataset.sha256 == sha256).limit(1)) is not None:
        return False
    storage.delete(blob_key(sha256))
    session.execute(delete(Blob).where(Blob.sha256 == sha256))
    return True


def locate(session: Session, dataset_id: str, owner: str | None = None) -> Dataset:
    """Raises InputError, in the words of a recipe, where it is not there."""
    try:
        return get(session, dataset_id, owner)
    except DatasetNotFound as error:
        raise InputError(FailureCode.DATASET_NOT_FOUND, f"dataset: {error}", "dataset") from error


def local_file(
    storage: Storage, settings: StoreSettings, dataset: Dataset, beat: Callable[[], None] = lambda: None
) -> AbstractContextManager[Path]:
    """A file of this machine with its bytes, for as long as the context lasts; `beat` is called while it is fetched.
    Raises InputError where they are gone, StorageUnavailable: now, and not when the context is entered."""
    if dataset.path is not None:
        return nullcontext(locate_dataset(dataset.path, settings.folders))
    assert dataset.sha256 is not None, "the table wants one of both"
    key = blob_key(dataset.sha256)
    try:
        path = storage.local_path(key)
        if path is not None:
            return nullcontext(path)
        return borrow(storage, key, settings.fetched_datasets / dataset.sha256, beat)
    except FileNotFoundError as error:
        raise bytes_gone(dataset) from error


def bytes_gone(dataset: Dataset) -> InputError:
    message = f"dataset: the bytes of {dataset.id} are no longer in the storage; upload it again"
    return InputError(FailureCode.DATASET_NOT_FOUND, message, "dataset")


def find_file(
    sessions: Sessions, settings: StoreSettings, path: str, beat: Callable[[], None] = lambda: None
) -> AbstractContextManager[Path]:
    """The file that a recipe's dataset.path names, a dataset by its id, or a path; as local_file gives it. Raises
    InputError, StorageUnavailable. No session is held when it looks into the storage."""
    if not is_id(path):
        return nullcontext(locate_dataset(path, settings.folders))
    with sessions.begin() as session:
        dataset = locate(session, path)
    # Made here: a bucket's threads do not outlive a fork.
    return local_file(make_storage(settings), settings, dataset, beat)
