"""Files of the OpenAI-compatible API: datasets, and the results of jobs."""

import hashlib
import re

from sqlalchemy.orm import Session

from api.context import Services
from api.datasets import service, uploads
from api.datasets.uploads import Form
from api.http.ids import check_dataset_id
from api.http.ranges import Content
from api.openai.schemas import Deleted, FileList, FileObject, file_object, results_object
from store import datasets, files
from store.access import audit
from store.access.idempotent_requests import Asked
from store.access.principal import Principal
from store.errors import DatasetNotFound, JobNotFound
from store.jobs import jobs
from store.models import Dataset, Job
from store.paging import page

_RESULTS = re.compile(r"file-(job_[0-9a-f]{24})")
"""The id of the results of a job."""


async def create(services: Services, who: Principal, asked: Asked, form: Form) -> FileObject:
    """Raises the errors of a dataset's upload."""
    return file_object(await uploads.upload(services, who, asked, form))


def newest(
    services: Services, who: Principal, limit: int, after: str | None, purpose: str | None, oldest_first: bool
) -> FileList:
    """Raises DatasetNotFound for an unknown `after`."""
    with services.sessions.begin() as session:
        if after is not None and not _RESULTS.fullmatch(after):
            check_dataset_id(after)
        found = page(files.newest(session, limit + 1, after, who.scope, purpose, oldest_first), limit)
        return FileList(data=[_told(session, each) for each in found.rows], has_more=found.has_more)


def _told(session: Session, file: Dataset | Job) -> FileObject:
    return results_object(file, files.results_bytes(session, file)) if isinstance(file, Job) else file_object(file)


def get(services: Services, who: Principal, file_id: str) -> FileObject:
    """Raises DatasetNotFound."""
    with services.sessions.begin() as session:
        job = _with_results(session, who, file_id)
        return _told(session, job or datasets.get(session, check_dataset_id(file_id), who.scope))


def content(services: Services, who: Principal, file_id: str) -> Content:
    """Raises DatasetNotFound, InputError; its `read` StorageUnavailable."""
    with services.sessions.begin() as session:
        job = _with_results(session, who, file_id)
        text = None if job is None else files.results(session, job.id)
    if job is None or text is None:
        return service.content(services, who, check_dataset_id(file_id))
    sha256 = hashlib.sha256(text).hexdigest()
    return Content(len(text), sha256, f"{job.id}.csv", "text/csv", lambda start, end: iter([text[start:end]]))


def delete(services: Services, who: Principal, file_id: str) -> Deleted:
    """Raises DatasetNotFound, DatasetInUse, StorageUnavailable."""
    with services.sessions.begin() as session:
        job = _with_results(session, who, file_id)
        if job is not None:
            files.delete_results(session, job)
            audit.record(session, who, "results.delete", job.id)
    if job is None:
        service.delete_dataset(services, who, check_dataset_id(file_id))
    return Deleted(id=file_id, object="file")


def _with_results(session: Session, who: Principal, file_id: str) -> Job | None:
    """The job whose results the id names, or None for a dataset's id. Raises DatasetNotFound."""
    named = _RESULTS.fullmatch(file_id)
    if named is None:
        return None
    try:
        job = jobs.get(session, named[1], who.scope)
    except JobNotFound as error:
        raise DatasetNotFound(file_id) from error
    if not files.has_results(job):
        raise DatasetNotFound(file_id)
    return job
