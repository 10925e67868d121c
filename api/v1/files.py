"""Files, as OpenAI's wire has them: datasets, and the results of jobs."""

import csv
import hashlib
import io
import re
from collections.abc import AsyncIterator

from sqlalchemy.orm import Session

from api.ranges import Content
from api.services import datasets as service
from api.services.datasets import Place
from api.v1.answers import Deleted, FileList, FileObject, file_object, results_object
from contract.quote import cut
from contract.status import JobStatus
from store import datasets, history, jobs
from store.errors import DatasetNotFound, JobNotFound
from store.models import Job
from store.principal import Principal
from store.requests import Asked

_RESULTS = re.compile(r"file-(job_[0-9a-f]{24})")
"""The id of the results of a job."""


async def create(
    place: Place, who: Principal, asked: Asked, content_type: str, length: str | None, stream: AsyncIterator[bytes]
) -> FileObject:
    """Raises what the upload of a dataset does."""
    made = await service.upload(place, who, asked, content_type, length, stream)
    return get(place, who, made.id)


def newest(
    place: Place, who: Principal, limit: int, after: str | None, purpose: str | None, oldest_first: bool
) -> FileList:
    """Raises DatasetNotFound for an unknown `after`."""
    with place.sessions.begin() as session:
        if after is not None and not datasets.is_id(after):
            raise DatasetNotFound(cut(after))
        found = datasets.newest(session, limit + 1, after, who.scope, purpose, oldest_first=oldest_first)
        return FileList(data=[file_object(each) for each in found[:limit]], has_more=len(found) > limit)


def get(place: Place, who: Principal, file_id: str) -> FileObject:
    """Raises DatasetNotFound."""
    with place.sessions.begin() as session:
        if job := _with_results(session, who, file_id):
            return results_object(job, len(_results(session, job.id)))
        return file_object(datasets.get(session, _checked(file_id), who.scope))


def content(place: Place, who: Principal, file_id: str) -> Content:
    """Raises DatasetNotFound, InputError; its `read` StorageAway."""
    with place.sessions.begin() as session:
        job = _with_results(session, who, file_id)
        text = None if job is None else _results(session, job.id)
    if job is None or text is None:
        return service.content(place, who, _checked(file_id))
    sha256 = hashlib.sha256(text).hexdigest()
    return Content(len(text), sha256, f"{job.id}.csv", "text/csv", lambda start, end: iter([text[start:end]]))


def delete(place: Place, who: Principal, file_id: str) -> Deleted:
    """Raises DatasetNotFound, DatasetInUse, StorageAway."""
    service.delete(place, who, _checked(file_id))
    return Deleted(id=file_id, object="file")


def _checked(file_id: str) -> str:
    if not datasets.is_id(file_id):
        raise DatasetNotFound(cut(file_id))
    return file_id


def _with_results(session: Session, who: Principal, file_id: str) -> Job | None:
    """The job whose results are meant, where it is one's. Raises DatasetNotFound."""
    named = _RESULTS.fullmatch(file_id)
    if named is None:
        return None
    try:
        job = jobs.get(session, named[1], who.scope)
    except JobNotFound as error:
        raise DatasetNotFound(file_id) from error
    if job.status is not JobStatus.SUCCEEDED:
        raise DatasetNotFound(file_id)
    return job


def _results(session: Session, job_id: str) -> bytes:
    """A line for each step, as OpenAI's own results have them."""
    held_out = history.evaluations(session, job_id)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", "train_loss", "valid_loss", "learning_rate"])
    for metric in history.all_metrics(session, job_id):
        writer.writerow([metric.step, metric.loss, held_out.get(metric.step, ""), metric.learning_rate])
    return text.getvalue().encode()
