"""Takes files of examples, and tells what is in them."""

import errno
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api import hub
from api.checks import FILE_VERSION, Checks, file_version
from api.errors import InvalidBody, InvalidParameter, StorageFull, TooLarge
from api.idempotency import Settle, once, with_body
from api.incoming import Incoming, incoming, pump
from api.looks import look
from api.multipart import FormReader
from api.ranges import Content
from api.schemas.datasets import (
    AboutDataset,
    DatasetDeleted,
    DatasetDetail,
    DatasetPage,
    DatasetReference,
    dataset_detail,
    dataset_out,
)
from api.settings import ApiSettings
from api.tokenizer_version import tokenizer_version
from contract.failure import FailureReason, InputError
from contract.locate import locate_dataset, locate_model
from contract.quote import cut, quote
from dataset.lengths import Lengths, TokenReport, token_report
from dataset.preview import Preview
from dataset.sandbox import DatasetSandbox
from storage.backends import Storage
from store import datasets
from store.access import audit, quotas
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.datasets import Source
from store.models import Dataset
from store.session import Sessions

_FORM = 64 << 10
"""Bytes of a form around its file."""
CHECK_WITHIN = 3.0  # seconds, that the answer to an upload waits for the check
_MEASURE_WITHIN = 20.0  # seconds; of a larger file the first examples are measured
_LONGEST_LOOK = 60.0  # seconds of a process that measures or previews
_MEASURING = 2
"""Counted up when the same file and tokenizer give other lengths than before."""


@dataclass(frozen=True)
class Place:
    """What every step on datasets needs."""

    sessions: Sessions
    settings: ApiSettings
    storage: Storage
    checks: Checks
    sandbox: DatasetSandbox


async def upload(
    place: Place, who: Principal, asked: Asked, content_type: str, length: str | None, stream: AsyncIterator[bytes]
) -> DatasetDetail:
    """The dataset of a form with a file. Raises TooLarge, also before anything is read; InvalidParameter, StorageFull,
    QuotaExceeded, RequestReused, StillAtWork."""
    await run_in_threadpool(_check_room, place, who, length)
    try:
        with incoming(place.settings.incoming, place.settings.largest_dataset) as file:
            form = FormReader(content_type, file.write)
            await pump(stream, form.feed)
            return await run_in_threadpool(_take_upload, place, who, asked, file, form)
    except OSError as error:
        raise _full(error) from error


def _check_room(place: Place, who: Principal, length: str | None) -> None:
    """By what the request says of itself, before it is read."""
    size = int(length) if length is not None and length.isascii() and length.isdigit() else 0
    if size > place.settings.largest_dataset + _FORM:
        raise TooLarge(place.settings.largest_dataset)
    with place.sessions.begin() as session:
        quotas.check_bytes(session, who.owner, max(0, size - _FORM))


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the server's disk is full; ask whoever runs it for room")
    return error


def _take_upload(place: Place, who: Principal, asked: Asked, file: Incoming, form: FormReader) -> DatasetDetail:
    filename = form.finish()
    about = _about(form.fields)
    sha256 = file.finish()
    told = about.model_dump_json().encode()
    return _keep(place, who, with_body(asked, sha256.encode(), filename.encode(), told), file, sha256, filename, about)


def _about(fields: dict[str, str]) -> AboutDataset:
    """Fields of a form are text; columns is the JSON text of an object. Raises InvalidParameter."""
    given: dict[str, Any] = dict(fields)
    # As OpenAI's SDK writes {"anchor": "created_at", "seconds": 3600}.
    if (anchor := given.pop("expires_after[anchor]", "created_at")) != "created_at":
        raise InvalidParameter("expires_after.anchor", anchor, 'give "created_at"')
    seconds = given.pop("expires_after[seconds]", given.get("expires_after_seconds"))
    if seconds is not None:
        given["expires_after_seconds"] = int(seconds) if re.fullmatch(r"[0-9]{1,9}", seconds) else seconds
    if "columns" in given:
        try:
            given["columns"] = json.loads(given["columns"])
        except (ValueError, RecursionError) as error:
            raise InvalidParameter("columns", fields["columns"], 'give JSON, as {"prompt": "question"}') from error
    try:
        return AboutDataset.model_validate(given)
    except ValidationError as error:
        raise InvalidBody(AboutDataset, error) from error


def _keep(
    place: Place,
    who: Principal,
    asked: Asked,
    file: Incoming,
    sha256: str,
    filename: str,
    about: AboutDataset,
    origin: str | None = None,
) -> DatasetDetail:
    """Puts the bytes into the storage, where they are not yet, and makes the dataset."""

    def make(settle: Settle) -> DatasetDetail:
        _store(place, sha256, file.path)
        source = Source(file.bytes, sha256=sha256, origin=origin)
        try:
            made = _create(place, who, filename, source, about, settle)
        except BaseException:
            with place.sessions.begin() as session:
                datasets.forget_unused(session, place.storage, sha256)
            raise
        # Who deleted the last dataset with these bytes may have done so before this one was there.
        _store(place, sha256, file.path)
        return made

    return _checked(place, who, once(place.sessions, asked, make, partial(get, place, who)))


def _store(place: Place, sha256: str, path: Path) -> None:
    key = datasets.blob_key(sha256)
    if not place.storage.exists(key):
        place.storage.put_file(key, path)


def _create(
    place: Place, who: Principal, filename: str, source: Source, about: AboutDataset, settle: Settle
) -> DatasetDetail:
    with place.sessions.begin() as session:
        told = about.model_dump(include={"purpose", "format", "columns"})
        seconds = about.expires_after_seconds
        kept = None if seconds is None else timedelta(seconds=seconds)
        made = datasets.create(session, who.owner, filename, source, **told, expires_after=kept)
        quotas.check_bytes(session, who.owner, 0)
        audit.record(session, who, "dataset.create", made.id, bytes=made.bytes, sha256=made.sha256)
        settle(session, made.id)
        return dataset_detail(made)


def _checked(place: Place, who: Principal, made: DatasetDetail) -> DatasetDetail:
    """With what the check has found, where that takes no longer than a moment."""
    if made.status != "uploaded":
        return made
    place.checks.wait(made.id, CHECK_WITHIN)
    return get(place, who, made.id)


def refer(place: Place, who: Principal, asked: Asked, body: bytes) -> DatasetDetail:
    """The dataset of a file on the server, or of a hub. Raises InvalidParameter, InputError, TooLarge, StorageFull,
    QuotaExceeded, RequestReused, StillAtWork."""
    try:
        reference = DatasetReference.model_validate_json(body)
    except ValidationError as error:
        raise InvalidBody(DatasetReference, error) from error
    asked = with_body(asked, body)
    if reference.path is None:
        return _fetch(place, who, asked, reference)
    path = locate_dataset(reference.path, place.settings.folders)
    source = Source(path.stat().st_size, path=reference.path)

    def make(settle: Settle) -> DatasetDetail:
        return _create(place, who, cut(path.name, 255), source, reference, settle)

    return _checked(place, who, once(place.sessions, asked, make, partial(get, place, who)))


def _fetch(place: Place, who: Principal, asked: Asked, reference: DatasetReference) -> DatasetDetail:
    assert reference.hub is not None
    assert reference.file is not None
    _check_room(place, who, None)
    origin = f"{reference.hub}/{reference.file}" + (f"@{reference.revision}" if reference.revision else "")
    try:
        with incoming(place.settings.incoming, place.settings.largest_dataset) as file:
            hub.download(reference.hub, reference.file, reference.revision, file)
            filename = reference.file.rpartition("/")[2]
            return _keep(place, who, asked, file, file.finish(), filename, reference, origin)
    except OSError as error:
        raise _full(error) from error


def newest(
    place: Place, who: Principal, limit: int, after: str | None, owner: str | None, purpose: str | None
) -> DatasetPage:
    """Those of `owner`, where an admin asks for them. Raises DatasetNotFound for an unknown `after`."""
    with place.sessions.begin() as session:
        found = datasets.newest(session, limit + 1, after, who.scope or owner, purpose)
        return DatasetPage(data=[dataset_out(each) for each in found[:limit]], has_more=len(found) > limit)


def get(place: Place, who: Principal, dataset_id: str) -> DatasetDetail:
    """Raises DatasetNotFound."""
    with place.sessions.begin() as session:
        return dataset_detail(datasets.get(session, dataset_id, who.scope))


def delete(place: Place, who: Principal, dataset_id: str) -> DatasetDeleted:
    """And its bytes, where no other dataset has them. Raises DatasetNotFound, DatasetInUse, StorageUnavailable."""
    with place.sessions.begin() as session:
        sha256 = datasets.remove(session, dataset_id, who.scope)
        audit.record(session, who, "dataset.delete", dataset_id)
        if sha256 is not None and datasets.forget_unused(session, place.storage, sha256):
            (place.settings.fetched_datasets / sha256).unlink(missing_ok=True)
    return DatasetDeleted(id=dataset_id, deleted=True)


def content(place: Place, who: Principal, dataset_id: str) -> Content:
    """Its bytes as they were uploaded, or as the operator's file has them where that was read as data. Raises
    DatasetNotFound, InputError; its `read` StorageUnavailable."""
    with place.sessions.begin() as session:
        dataset = datasets.get(session, dataset_id, who.scope)
    name, media_type = dataset.filename, "application/octet-stream"
    if dataset.sha256 is not None:
        key = datasets.blob_key(dataset.sha256)
        if not place.storage.exists(key):
            raise datasets.bytes_gone(dataset)
        return Content(dataset.bytes, dataset.sha256, name, media_type, partial(place.storage.read, key))
    assert dataset.path is not None, "the table wants one of both"
    path = locate_dataset(dataset.path, place.settings.folders)
    status = path.stat()
    _refuse_what_is_no_data(dataset, file_version(status))
    return Content(status.st_size, file_version(status), name, media_type, partial(_pieces, dataset.id, path, status))


def _refuse_what_is_no_data(dataset: Dataset, version: str) -> None:
    """A file of the server may be anything until it was read. Raises InputError."""
    if dataset.status == "uploaded":
        message = f"dataset: {dataset.id} is still being checked; ask again"
        raise InputError(FailureReason.DATASET_INVALID, message, "dataset")
    if dataset.status != "processed" or dataset.report is None:
        message = f"dataset: {dataset.id} is a file of the server that cannot be read as data: {dataset.status_details}"
        raise InputError(FailureReason.DATASET_INVALID, message, "dataset")
    if dataset.report.get(FILE_VERSION) != version:
        raise _changed(dataset.id)


def _changed(dataset_id: str) -> InputError:
    message = f"dataset: the file of {dataset_id} was written since it was checked; register it again"
    return InputError(FailureReason.DATASET_CHANGED, message, "dataset")


def _pieces(dataset_id: str, path: Path, checked: os.stat_result, start: int, end: int) -> Iterator[bytes]:
    """Raises InputError where another file has taken the place of the one that was checked."""
    with path.open("rb", buffering=0) as file:
        if not os.path.samestat(os.fstat(file.fileno()), checked):
            raise _changed(dataset_id)
        file.seek(start)
        while start < end and (piece := file.read(min(end - start, 1 << 20))):
            start += len(piece)
            yield piece


def tokens(
    place: Place, who: Principal, dataset_id: str, model: str, chat_template: str | None, max_length: int
) -> TokenReport:
    """Raises DatasetNotFound, InputError, TooManyRequests."""
    dataset, given = _reading(place, who, dataset_id, model, chat_template)
    kept = _kept(place.settings.lengths, dataset, given)
    try:
        found = Lengths.model_validate_json(kept.read_bytes())
    except (FileNotFoundError, ValidationError):
        found = Lengths.model_validate(_ask(place, "measure", dataset, given, most_seconds=_MEASURE_WITHIN))
        if dataset.sha256 is not None:
            _write(kept, found.model_dump_json())
    return token_report(found, max_length)


def preview(
    place: Place,
    who: Principal,
    dataset_id: str,
    model: str,
    chat_template: str | None,
    max_length: int,
    offset: int,
    limit: int,
) -> Preview:
    """Raises DatasetNotFound, InputError, TooManyRequests."""
    dataset, given = _reading(place, who, dataset_id, model, chat_template)
    asked = {"max_length": max_length, "offset": offset, "limit": limit}
    return Preview.model_validate(_ask(place, "preview", dataset, given, **asked))


def _reading(
    place: Place, who: Principal, dataset_id: str, model: str, chat_template: str | None
) -> tuple[Dataset, dict[str, Any]]:
    with place.sessions.begin() as session:
        dataset = datasets.get(session, dataset_id, who.scope)
    folder = locate_model(model, place.settings.folders)
    if folder is None:
        message = f"model: got {quote(model)}; its tokenizer is not on the server: name a folder of the server's models"
        raise InputError(FailureReason.MODEL_NOT_FOUND, message, "model")
    return dataset, {
        "name": dataset.filename,
        "format": dataset.format or "auto",
        "columns": dataset.columns,
        "model": str(folder),
        "chat_template": chat_template,
    }


def _ask(place: Place, task: str, dataset: Dataset, given: dict[str, Any], **asked: Any) -> Any:
    with datasets.local_file(place.storage, place.settings, dataset) as path:
        return look(place.sandbox, task, _LONGEST_LOOK, path=str(path), **given, **asked)


def _kept(folder: Path, dataset: Dataset, given: dict[str, Any]) -> Path:
    """The file of what was measured: named by all that it comes of."""
    digest = hashlib.sha256()
    told = {name: value for name, value in given.items() if name != "model"}
    digest.update(json.dumps([_MEASURING, dataset.sha256, told], sort_keys=True).encode())
    digest.update(tokenizer_version(Path(given["model"])).encode())
    return folder / f"{digest.hexdigest()}.json"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.partial")
    beside.write_text(text)
    beside.replace(path)
