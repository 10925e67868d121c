"""Files as OpenAI's wire has them: datasets, and the results of jobs, which are made of a job's metrics."""

import csv
import io
from collections.abc import Iterable

from sqlalchemy import func, literal, select, tuple_, union_all
from sqlalchemy.orm import Session, load_only

from contract.quote import cut
from contract.status import JobStatus
from store.errors import DatasetNotFound
from store.jobs import history
from store.models import Dataset, Job

RESULTS = "fine-tune-results"
"""The purpose of results."""
_PREFIX = "file-"
_HAS_RESULTS = (Job.status == JobStatus.SUCCEEDED, Job.results_deleted_at.is_(None))


def results_id(job_id: str) -> str:
    return _PREFIX + job_id


def newest(
    session: Session, limit: int, after: str | None, owner: str | None, purpose: str | None, oldest_first: bool
) -> list[Dataset | Job]:
    """Datasets, and jobs in the place of their results; newest first, or oldest. `after` is the last id of the page
    before. Raises DatasetNotFound for an unknown `after`."""
    own = (Dataset.id, Dataset.created_at.label("made_at"), Dataset.owner, Dataset.purpose)
    made = (literal(_PREFIX) + Job.id, Job.finished_at, Job.owner, literal(RESULTS))
    file = union_all(select(*own), select(*made).where(*_HAS_RESULTS)).subquery().c
    place = (file.made_at, file.id)
    query = select(file.id).order_by(*(place if oldest_first else (column.desc() for column in place))).limit(limit)
    mine = () if owner is None else (file.owner == owner,)
    if purpose is not None:
        query = query.where(file.purpose == purpose)
    if after is not None:
        last = session.execute(select(*place).where(file.id == after, *mine)).one_or_none()
        if last is None:
            raise DatasetNotFound(cut(after))
        query = query.where(tuple_(*place) > tuple(last) if oldest_first else tuple_(*place) < tuple(last))
    return _of_ids(session, session.scalars(query.where(*mine)).all())


def _of_ids(session: Session, file_ids: Iterable[str]) -> list[Dataset | Job]:
    """In their order; without those that have just gone."""
    file_ids = list(file_ids)
    told = load_only(Job.created_at, Job.finished_at, Job.results_bytes)
    job_ids = [file_id.removeprefix(_PREFIX) for file_id in file_ids]
    found: dict[str, Dataset | Job] = {
        results_id(job.id): job for job in session.scalars(select(Job).where(Job.id.in_(job_ids)).options(told))
    }
    found |= {each.id: each for each in session.scalars(select(Dataset).where(Dataset.id.in_(file_ids)))}
    return [found[file_id] for file_id in file_ids if file_id in found]


def has_results(job: Job) -> bool:
    return job.status is JobStatus.SUCCEEDED and job.results_deleted_at is None


def delete_results(session: Session, job: Job) -> None:
    """Of a job that has them."""
    job.results_deleted_at = session.scalar(select(func.now()))


def results(session: Session, job_id: str) -> bytes:
    """A line for each step, as OpenAI's own results have them."""
    held_out = history.evaluations(session, job_id)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["step", "train_loss", "valid_loss", "learning_rate"])
    for metric in history.all_metrics(session, job_id):
        writer.writerow([metric.step, metric.loss, held_out.get(metric.step, ""), metric.learning_rate])
    return text.getvalue().encode()


def results_bytes(session: Session, job: Job) -> int:
    """Of what `results` gives: counted once, when the job succeeds, but for those that have before we counted."""
    return len(results(session, job.id)) if job.results_bytes is None else job.results_bytes
