"""Files, as OpenAI's wire has them: datasets, and the results of jobs."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace

from api.ranges import Content
from api.services import artifacts as artifact_service
from api.services import datasets as service
from api.services.datasets import Place
from api.v1.answers import Deleted, FileList, FileObject, file_object, results_object
from contract import ids
from contract.formatting import truncate
from store import artifacts, datasets, files
from store.access import audit
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.artifacts import REPORT
from store.errors import DatasetNotFound
from store.files import ResultsFile
from store.models import Dataset

_RESULTS = re.compile(f"{ids.DATASET}({ids.JOB}{ids.HEX})")
"""The id of the results of a job."""


async def create(
    place: Place,
    who: Principal,
    asked: IdempotentRequest,
    content_type: str,
    length: str | None,
    stream: AsyncIterator[bytes],
) -> FileObject:
    """Raises what the upload of a dataset does."""
    made = await service.upload(place, who, asked, content_type, length, stream)
    return get(place, who, made.id)


def newest(
    place: Place, who: Principal, limit: int, after: str | None, purpose: str | None, oldest_first: bool
) -> FileList:
    """Raises DatasetNotFound for an unknown `after`."""
    with place.sessions.begin() as session:
        if after is not None and not _RESULTS.fullmatch(after):
            _checked(after)
        found = files.list_files(session, limit + 1, after, who.scope, purpose, oldest_first)
    return FileList(data=[_present(each) for each in found[:limit]], has_more=len(found) > limit)


def _present(file: Dataset | ResultsFile) -> FileObject:
    return results_object(file) if isinstance(file, ResultsFile) else file_object(file)


def get(place: Place, who: Principal, file_id: str) -> FileObject:
    """Raises DatasetNotFound."""
    with place.sessions.begin() as session:
        job_id = _job_id(file_id)
        if job_id is None:
            return file_object(datasets.get(session, _checked(file_id), who.scope))
        return results_object(files.get_results(session, job_id, who.scope))


def content(place: Place, who: Principal, file_id: str) -> Content:
    """Raises DatasetNotFound, InputError; its `read` StorageUnavailable."""
    job_id = _job_id(file_id)
    if job_id is None:
        return service.content(place, who, _checked(file_id))
    with place.sessions.begin() as session:
        files.get_results(session, job_id, who.scope)
    results = artifact_service.download(place.sessions, place.storage, who, job_id, REPORT["results"])
    return replace(results, name=f"{job_id}.csv")


def delete(place: Place, who: Principal, file_id: str) -> Deleted:
    """Raises DatasetNotFound, DatasetInUse, StorageUnavailable."""
    job_id = _job_id(file_id)
    if job_id is None:
        service.delete(place, who, _checked(file_id))
        return Deleted(id=file_id, object="file")
    with place.sessions.begin() as session:
        artifact = files.get_results(session, job_id, who.scope).artifact
    place.storage.delete(artifacts.key(artifact))
    with place.sessions.begin() as session:
        artifacts.delete_rows(session, [artifact])
        audit.record(session, who, "results.delete", job_id)
    return Deleted(id=file_id, object="file")


def _checked(file_id: str) -> str:
    if not datasets.is_id(file_id):
        raise DatasetNotFound(truncate(file_id))
    return file_id


def _job_id(file_id: str) -> str | None:
    """The job whose results the file is; None for a dataset."""
    named = _RESULTS.fullmatch(file_id)
    return None if named is None else named[1]
