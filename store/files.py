"""Files as OpenAI's API lists them: datasets, and the results of the jobs that have succeeded."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, literal, select, tuple_, union_all
from sqlalchemy.orm import Session

from contract import ids
from contract.formatting import truncate
from contract.status import JobStatus
from store.artifacts import REPORT
from store.errors import DatasetNotFound
from store.models import Artifact, Dataset, Job

RESULTS = "fine-tune-results"
"""The purpose of results."""
_PREFIX = ids.DATASET


@dataclass(frozen=True)
class ResultsFile:
    """The published results of a job that has succeeded."""

    artifact: Artifact
    created_at: datetime
    """When the job ended."""

    @property
    def id(self) -> str:
        return results_id(self.artifact.job_id)


def results_id(job_id: str) -> str:
    return _PREFIX + job_id


def list_files(  # parameters: the request's
    session: Session, limit: int, after: str | None, owner: str | None, purpose: str | None, oldest_first: bool
) -> list[Dataset | ResultsFile]:
    """One page, newest first or oldest first; `after` is the last id of the page before. Raises DatasetNotFound for an
    unknown `after`. Six parameters: the query of the route."""
    own = select(Dataset.id, Dataset.created_at.label("made_at"), Dataset.owner, Dataset.purpose)
    made = _with_results(literal(_PREFIX) + Job.id, Job.finished_at, Job.owner, literal(RESULTS))
    file = union_all(own, made).subquery().c
    place = (file.made_at, file.id)
    query = select(file.id).order_by(*(place if oldest_first else (column.desc() for column in place))).limit(limit)
    mine = () if owner is None else (file.owner == owner,)
    if purpose is not None:
        query = query.where(file.purpose == purpose)
    if after is not None:
        last = session.execute(select(*place).where(file.id == after, *mine)).one_or_none()
        if last is None:
            raise DatasetNotFound(truncate(after))
        query = query.where(tuple_(*place) > tuple(last) if oldest_first else tuple_(*place) < tuple(last))
    return _by_ids(session, session.scalars(query.where(*mine)).all())


def _by_ids(session: Session, file_ids: Iterable[str]) -> list[Dataset | ResultsFile]:
    """In the order of the ids, without files deleted in the meantime."""
    file_ids = list(file_ids)
    job_ids = [file_id.removeprefix(_PREFIX) for file_id in file_ids]
    found: dict[str, Dataset | ResultsFile] = {each.id: each for each in _results(session, job_ids)}
    found |= {each.id: each for each in session.scalars(select(Dataset).where(Dataset.id.in_(file_ids)))}
    return [found[file_id] for file_id in file_ids if file_id in found]


def get_results(session: Session, job_id: str, owner: str | None) -> ResultsFile:
    """The results of a job of `owner`, or of any owner with None. Raises DatasetNotFound."""
    found = _results(session, [job_id], *([] if owner is None else [Job.owner == owner]))
    if not found:
        raise DatasetNotFound(results_id(job_id))
    return found[0]


def with_results(session: Session, job_ids: Collection[str]) -> set[str]:
    """Those of the jobs that have results."""
    return set(session.scalars(_with_results(Job.id).where(Job.id.in_(job_ids))))


def _results(session: Session, job_ids: Collection[str], *conditions: Any) -> list[ResultsFile]:
    query = _with_results(Artifact, Job.finished_at).where(Job.id.in_(job_ids), *conditions)
    return [ResultsFile(artifact, finished_at) for artifact, finished_at in session.execute(query)]


def _with_results(*columns: Any) -> Select[Any]:
    published = (Artifact.name == REPORT["results"], Artifact.sha256.is_not(None))
    return select(*columns).join_from(Job, Artifact).where(Job.status == JobStatus.SUCCEEDED, *published)
