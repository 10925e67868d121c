"""Files of the OpenAI-compatible API: datasets, and the results of jobs."""

import re
from dataclasses import replace

from api.artifacts import artifact_content, find_artifact
from api.context import Services
from api.datasets import creation, service
from api.datasets.creation import Form
from api.http.ids import check_dataset_id
from api.http.ranges import Content
from api.openai.schemas import Deleted, FileList, FileObject, file_object, results_object
from contract import ids
from store import artifacts, datasets, files
from store.access import audit
from store.access.idempotent_requests import IdempotentRequest
from store.access.principal import Principal
from store.artifacts import REPORT
from store.files import ResultsFile
from store.models import Dataset
from store.paging import page

_RESULTS = re.compile(f"{ids.DATASET}({ids.JOB}{ids.HEX})")
"""The id of the results of a job."""


async def create(services: Services, who: Principal, once: IdempotentRequest, form: Form) -> FileObject:
    """Raises the errors of a dataset's upload."""
    return file_object(await creation.upload(services, who, once, form))


def newest(  # parameters: the request's
    services: Services, who: Principal, limit: int, after: str | None, purpose: str | None, oldest_first: bool
) -> FileList:
    """Raises DatasetNotFound for an unknown `after`."""
    with services.sessions.begin() as session:
        if after is not None and not _RESULTS.fullmatch(after):
            check_dataset_id(after)
        found = page(files.list_files(session, limit + 1, after, who.scope, purpose, oldest_first), limit)
    return FileList(data=[_present(each) for each in found.rows], has_more=found.has_more)


def _present(file: Dataset | ResultsFile) -> FileObject:
    return results_object(file) if isinstance(file, ResultsFile) else file_object(file)


def get(services: Services, who: Principal, file_id: str) -> FileObject:
    """Raises DatasetNotFound."""
    with services.sessions.begin() as session:
        job_id = _job_id(file_id)
        if job_id is None:
            return file_object(datasets.get(session, check_dataset_id(file_id), who.scope))
        return results_object(files.get_results(session, job_id, who.scope))


def content(services: Services, who: Principal, file_id: str) -> Content:
    """Raises DatasetNotFound, InputError; its `read` StorageUnavailable."""
    job_id = _job_id(file_id)
    if job_id is None:
        return service.content(services, who, check_dataset_id(file_id))
    with services.sessions.begin() as session:
        files.get_results(session, job_id, who.scope)
    name = REPORT["results"]
    results = artifact_content(services.storage, find_artifact(services, who, job_id, name), name)
    return replace(results, name=f"{job_id}.csv")


def delete(services: Services, who: Principal, file_id: str) -> Deleted:
    """Raises DatasetNotFound, DatasetInUse, StorageUnavailable."""
    job_id = _job_id(file_id)
    if job_id is None:
        service.delete_dataset(services, who, check_dataset_id(file_id))
        return Deleted(id=file_id, object="file")
    with services.sessions.begin() as session:
        artifacts.delete(session, [files.get_results(session, job_id, who.scope).artifact])
        audit.record(session, who, "results.delete", job_id)
    return Deleted(id=file_id, object="file")


def _job_id(file_id: str) -> str | None:
    """The job whose results the file is; None for a dataset."""
    named = _RESULTS.fullmatch(file_id)
    return None if named is None else named[1]
