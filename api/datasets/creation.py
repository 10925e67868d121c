"""Makes datasets: of an uploaded file, of one on the server, or of one that a hub has."""

import errno
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from fastapi import Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from api.context import Services
from api.datasets import hub
from api.datasets.multipart import FormReader
from api.datasets.schemas import AboutDataset, DatasetReference
from api.datasets.service import get_dataset
from api.datasets.upload import Incoming, incoming, pump
from api.errors import InvalidBody, InvalidParameter, StorageFull, TooLarge
from api.http.body import parse_body
from api.http.idempotency import Turn, idempotent, with_body
from contract.formatting import truncate
from contract.json_objects import unique_object
from contract.locate import locate_dataset
from store import datasets
from store.access import audit, quotas, secrets
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.access.vault import Unreadable
from store.datasets import Source
from store.errors import SecretNotFound
from store.models import Dataset

_FORM_BYTES = 64 << 10
"""Of a form around its file."""
CHECK_WITHIN = 3.0
"""Seconds that the answer to an upload waits for the check."""


@dataclass(frozen=True)
class Form:
    """A body that comes in as a form with a file."""

    content_type: str
    length: str | None
    stream: AsyncIterator[bytes]

    @classmethod
    def of(cls, request: Request) -> Self:
        headers = request.headers
        return cls(headers.get("content-type", ""), headers.get("content-length"), request.stream())


@dataclass(frozen=True)
class NewDataset:
    filename: str
    source: Source
    about: AboutDataset


async def upload(services: Services, who: Principal, once: IdempotentRequest, form: Form) -> Dataset:
    """The dataset of a form with a file. Raises TooLarge, also before anything is read; InvalidParameter, StorageFull,
    QuotaExceeded, RequestReused, RequestInProgress."""
    settings = services.settings
    await run_in_threadpool(_check_room, services, who, form.length)
    try:
        with incoming(settings.incoming, settings.largest_dataset) as file:
            reader = FormReader(form.content_type, file.write)
            await pump(form.stream, reader.feed)
            return await run_in_threadpool(_take_upload, services, who, once, file, reader)
    except OSError as error:
        raise _full(error) from error


def _check_room(services: Services, who: Principal, length: str | None) -> None:
    """By what the request says of itself, before it is read."""
    size = int(length) if length is not None and length.isascii() and length.isdigit() else 0
    if size > services.settings.largest_dataset + _FORM_BYTES:
        raise TooLarge(services.settings.largest_dataset)
    with services.sessions.begin() as session:
        quotas.check_bytes(session, who.owner, max(0, size - _FORM_BYTES))


def _full(error: OSError) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("the server's disk is full; ask whoever runs it for room")
    return error


def _take_upload(
    services: Services, who: Principal, once: IdempotentRequest, file: Incoming, reader: FormReader
) -> Dataset:
    filename = reader.finish()
    about = _about(reader.fields)
    sha256 = file.finish()
    once = with_body(once, sha256.encode(), filename.encode(), about.model_dump_json().encode())
    return _keep(services, who, once, file, NewDataset(filename, Source(file.bytes, sha256=sha256), about))


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
            given["columns"] = json.loads(given["columns"], object_pairs_hook=unique_object)
        except (ValueError, RecursionError) as error:
            raise InvalidParameter("columns", fields["columns"], 'give JSON, as {"prompt": "question"}') from error
    try:
        return AboutDataset.model_validate(given)
    except ValidationError as error:
        raise InvalidBody(AboutDataset, error) from error


def _keep(services: Services, who: Principal, once: IdempotentRequest, file: Incoming, new: NewDataset) -> Dataset:
    """The dataset, once its bytes are in the storage."""
    with idempotent(services, once) as turn:
        made = turn.made or _create_with_bytes(services, who, turn, file, new)
    return _checked(services, who, made)


def _create_with_bytes(services: Services, who: Principal, turn: Turn, file: Incoming, new: NewDataset) -> str:
    sha256 = new.source.sha256
    assert sha256 is not None
    _store(services, sha256, file.path)
    try:
        made = _create(services, who, turn, new)
    except BaseException:
        with services.sessions.begin() as session:
            datasets.delete_unused_blob(session, services.storage, sha256)
        raise
    # Whoever deleted the last dataset with these bytes may have done so before this one existed.
    _store(services, sha256, file.path)
    return made


def _store(services: Services, sha256: str, path: Path) -> None:
    key = datasets.blob_key(sha256)
    if not services.storage.exists(key):
        services.storage.put_file(key, path)


def _create(services: Services, who: Principal, turn: Turn, new: NewDataset) -> str:
    """Its id. Raises QuotaExceeded."""
    about = new.about
    seconds = about.expires_after_seconds
    with services.sessions.begin() as session:
        made = datasets.create(
            session,
            who.owner,
            new.filename,
            new.source,
            **about.model_dump(include={"purpose", "format", "columns"}),
            expires_after=None if seconds is None else timedelta(seconds=seconds),
        )
        quotas.check_bytes(session, who.owner, 0)
        audit.record(session, who, "dataset.create", made.id, bytes=made.bytes, sha256=made.sha256)
        turn.complete(session, made.id)
        return made.id


def _checked(services: Services, who: Principal, dataset_id: str) -> Dataset:
    """With what the check has found, where that takes no longer than a moment."""
    made = get_dataset(services, who, dataset_id)
    if made.status != "uploaded":
        return made
    services.checks.wait(dataset_id, CHECK_WITHIN)
    return get_dataset(services, who, dataset_id)


def refer(services: Services, who: Principal, once: IdempotentRequest, body: bytes) -> Dataset:
    """The dataset of a file on the server, or of a hub. Raises InvalidParameter, InputError, TooLarge, StorageFull,
    QuotaExceeded, RequestReused, RequestInProgress."""
    reference = parse_body(DatasetReference, body)
    if reference.path is None:
        return _fetch(services, who, once, reference)
    path = locate_dataset(reference.path, services.settings.folders)
    source = Source(path.stat().st_size, path=reference.path)
    with idempotent(services, once) as turn:
        made = turn.made or _create(services, who, turn, NewDataset(truncate(path.name, 255), source, reference))
    return _checked(services, who, made)


def _token(services: Services, who: Principal, name: str) -> str:
    """Raises InvalidParameter."""
    try:
        with services.sessions.begin() as session:
            return secrets.reveal(session, services.vault, who.owner, name)
    except (SecretNotFound, Unreadable) as error:
        raise InvalidParameter("secret", name, f"{error}; store it with PUT /secrets/{name}") from error


def _fetch(services: Services, who: Principal, once: IdempotentRequest, reference: DatasetReference) -> Dataset:
    assert reference.hub is not None
    assert reference.file is not None
    _check_room(services, who, None)
    token = None if reference.secret is None else _token(services, who, reference.secret)
    origin = f"{reference.hub}/{reference.file}" + (f"@{reference.revision}" if reference.revision else "")
    try:
        with incoming(services.settings.incoming, services.settings.largest_dataset) as file:
            hub.download(reference.hub, reference.file, reference.revision, token, file)
            source = Source(file.bytes, sha256=file.finish(), origin=origin)
            filename = reference.file.rpartition("/")[2]
            return _keep(services, who, once, file, NewDataset(filename, source, reference))
    except OSError as error:
        raise _full(error) from error
