"""Evaluations: a dataset run through a job's base model and its adapter, requested by its owner. A worker has an
inference server evaluate the examples one after another; each row stays, and the next worker continues after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract import ids
from contract.failure import Failure, FailureCode
from contract.recipe import DatasetSource
from store import artifacts, deletions
from store.artifacts import Digests
from store.errors import EvaluationNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact, EvaluatedRow, Job, JobEvaluation
from store.paging import newest_first

_MOST_BREAKS = 5
"""Number of breaks in a row without a further example after which it fails."""
PAUSE = timedelta(seconds=5)
"""How long one that cannot go on is left alone."""
_LOST = "the worker that evaluated it was lost; its memory may be too small"


@dataclass(frozen=True)
class NewEvaluation:
    source: Artifact
    """The adapter or checkpoint."""
    dataset: DatasetSource
    """With its digest."""
    settings: Mapping[str, Any]
    examples: int


def create(session: Session, job_id: str, new: NewEvaluation, owner: str | None) -> JobEvaluation:
    """Raises JobNotFound, ArtifactNotFound where the adapter was deleted meanwhile."""
    jobs.hold(session, job_id, owner)
    artifacts.get(session, job_id, new.source.name)
    evaluation = JobEvaluation(
        id=ids.new_id(ids.EVALUATION),
        job_id=job_id,
        source=new.source.name,
        step=new.source.step,
        dataset=new.dataset.model_dump(mode="json"),
        sha256=new.dataset.sha256,
        settings=dict(new.settings),
        examples=new.examples,
        status="queued",
        attempt=0,
    )
    session.add(evaluation)
    session.flush()
    session.refresh(evaluation)
    return evaluation


def get(session: Session, job_id: str, evaluation_id: str) -> JobEvaluation:
    """An evaluation of the job. Raises EvaluationNotFound."""
    evaluation = session.get(JobEvaluation, evaluation_id)
    if evaluation is None or evaluation.job_id != job_id:
        raise EvaluationNotFound(evaluation_id, job_id)
    return evaluation


def list_of_job(session: Session, job_id: str, limit: int, after: str | None) -> list[JobEvaluation]:
    """One page of a job's evaluations, newest first; `after` is the last id of the page before. Raises
    EvaluationNotFound."""
    last = None if after is None else get(session, job_id, after)
    query = select(JobEvaluation).where(JobEvaluation.job_id == job_id)
    return list(session.scalars(newest_first(query, JobEvaluation, limit, last)))


def list_of_dataset(
    session: Session, sha256: str | None, limit: int, after: str | None, owner: str | None
) -> list[JobEvaluation]:
    """The same of all jobs of an owner, on the dataset of a digest, or on any with None. Raises EvaluationNotFound."""
    query = select(JobEvaluation).join(Job)
    if owner is not None:
        query = query.where(Job.owner == owner)
    last = None if after is None else session.scalar(query.where(JobEvaluation.id == after))
    if after is not None and last is None:
        raise EvaluationNotFound(after)
    if sha256 is not None:
        query = query.where(JobEvaluation.sha256 == sha256)
    return list(session.scalars(newest_first(query, JobEvaluation, limit, last)))


def list_rows(session: Session, evaluation_id: str, limit: int | None = None, after: int = 0) -> list[EvaluatedRow]:
    """Rows in the order of the file, those behind number `after`."""
    mine = (EvaluatedRow.evaluation_id == evaluation_id, EvaluatedRow.number > after)
    return list(session.scalars(select(EvaluatedRow).where(*mine).order_by(EvaluatedRow.number).limit(limit)))


def next_due(session: Session) -> JobEvaluation | None:
    """The one whose turn it is, or whose worker was lost, locked and queued. None where none is, or it has failed."""
    lost = (JobEvaluation.status == "running") & (JobEvaluation.lease_expires_at < func.now())
    due = (
        select(JobEvaluation)
        .where((JobEvaluation.status == "queued") & (JobEvaluation.turn_at <= func.now()) | lost)
        .order_by(JobEvaluation.turn_at)
        .limit(1)
    )
    evaluation = session.scalar(due.with_for_update(skip_locked=True), execution_options={"populate_existing": True})
    if evaluation is not None and evaluation.status == "running":
        delete_files(session, evaluation)
        if not _count_break(session, evaluation, _LOST):
            return None
        put_off(evaluation, None, timedelta(0))
    return evaluation


def claim(session: Session, evaluation: JobEvaluation, worker: str, lease: timedelta) -> None:
    """Starts a new attempt by the worker at one that is due."""
    evaluation.status, evaluation.worker, evaluation.attempt = "running", worker, evaluation.attempt + 1
    evaluation.lease_expires_at, evaluation.waits = func.now() + lease, None
    session.flush()
    session.refresh(evaluation)


def put_off_broken(session: Session, evaluation: JobEvaluation, why: str, pause: timedelta) -> None:
    """Puts off one that is due, and counts a break."""
    if _count_break(session, evaluation, why):
        put_off(evaluation, why, pause)


def put_off(evaluation: JobEvaluation, waits: str | None, pause: timedelta) -> None:
    """Has a locked one wait behind all others, after a pause. `waits` says why it cannot go on now."""
    evaluation.status, evaluation.worker, evaluation.lease_expires_at = "queued", None, None
    evaluation.waits, evaluation.turn_at = waits, func.now() + pause


def delete_files(session: Session, evaluation: JobEvaluation) -> None:
    """Deletes what an attempt that has ended may have written and uploaded."""
    deletions.add(session, [str(folder(evaluation))])


def _count_break(session: Session, evaluation: JobEvaluation, why: str) -> bool:
    """False where that was one too many, and it has failed."""
    evaluation.breaks += 1
    if evaluation.breaks < _MOST_BREAKS:
        return True
    message = f"it broke off {evaluation.breaks} times behind example {evaluation.done}: {why}"
    fail_locked(session, evaluation, Failure(code=FailureCode.WORKER_FAILED, message=message))
    return False


def renew(session: Session, evaluation_id: str, attempt: int, lease: timedelta) -> bool:
    """Extends the lease; False where the attempt has lost it."""
    mine = _mine(evaluation_id, attempt)
    renewed = update(JobEvaluation).where(*mine).values(lease_expires_at=func.now() + lease).returning(JobEvaluation.id)
    return session.scalar(renewed) is not None


def add_row(session: Session, evaluation_id: str, attempt: int, number: int, data: Mapping[str, Any]) -> bool:
    """Adds an example; the same one again changes nothing. False where the attempt has lost its lease."""
    values = {"done": number, "breaks": 0, "waits": None}
    done = update(JobEvaluation).where(*_mine(evaluation_id, attempt)).values(values).returning(JobEvaluation.id)
    if session.scalar(done) is None:
        return False
    row = {"evaluation_id": evaluation_id, "number": number, "data": dict(data)}
    session.execute(insert(EvaluatedRow).values(row).on_conflict_do_nothing())
    return True


def requeue(session: Session, evaluation_id: str, attempt: int, waits: str | None, is_break: bool) -> None:
    """Puts it behind all others that wait. `waits` says why it cannot go on now, and has it left alone for a while.
    A break is counted, and goes on at once."""
    evaluation = _locked(session, evaluation_id, attempt)
    if evaluation is None or (is_break and not _count_break(session, evaluation, waits or "")):
        return
    put_off(evaluation, waits, PAUSE if waits and not is_break else timedelta(0))


def succeed(
    session: Session, evaluation: JobEvaluation, scores: Mapping[str, Any], dropped: int, digests: Digests
) -> bool:
    """Ends one whose file is complete in the storage, and adds that as an artifact; the same again changes nothing.
    False where the attempt has lost its lease."""
    try:
        jobs.hold(session, evaluation.job_id)  # first: a job is always locked before its evaluations
    except JobNotFound:
        return False
    locked = _locked(session, evaluation.id, evaluation.attempt)
    if locked is None:
        # The commit may have succeeded although the database went away before it said so.
        its = (JobEvaluation.id == evaluation.id, JobEvaluation.attempt == evaluation.attempt)
        done = (*its, JobEvaluation.status == "succeeded")
        return session.scalar(select(JobEvaluation.id).where(*done)) is not None
    made = artifact(evaluation)
    locked.status, locked.lease_expires_at, locked.finished_at = "succeeded", None, func.now()
    locked.scores, locked.dropped, locked.artifact = dict(scores), dropped, made.name
    locked.waits, locked.done = None, locked.examples
    artifacts.add(session, made)
    artifacts.mark_published(session, made, digests)
    return True


def fail(session: Session, evaluation_id: str, attempt: int, failure: Failure) -> None:
    """Ends one that cannot go on. Its rows stay."""
    evaluation = _locked(session, evaluation_id, attempt)
    if evaluation is not None:
        fail_locked(session, evaluation, failure)


def fail_open(session: Session, job_id: str, failure: Failure) -> None:
    """Fails those of a locked job that are not done. A worker that is at one stops within seconds."""
    open_ones = (JobEvaluation.job_id == job_id, JobEvaluation.status.in_(["queued", "running"]))
    found = select(JobEvaluation).where(*open_ones).order_by(JobEvaluation.id)
    for evaluation in session.scalars(found.with_for_update()):
        fail_locked(session, evaluation, failure)


def delete(session: Session, job_id: str, evaluation_id: str, owner: str | None) -> None:
    """Ends it if it is not done, and deletes it with its rows and its artifact. Raises JobNotFound,
    EvaluationNotFound."""
    jobs.hold(session, job_id, owner)
    # Of two requests at once the second finds nothing any more.
    evaluation = session.get(JobEvaluation, evaluation_id, with_for_update=True, populate_existing=True)
    if evaluation is None or evaluation.job_id != job_id:
        raise EvaluationNotFound(evaluation_id, job_id)
    if evaluation.artifact is not None:
        its = (Artifact.job_id == job_id, Artifact.name == evaluation.artifact)
        artifacts.delete(session, session.scalars(select(Artifact).where(*its)).all())
    if evaluation.attempt > 0:
        delete_files(session, evaluation)
    session.delete(evaluation)


def fail_locked(session: Session, evaluation: JobEvaluation, failure: Failure) -> None:
    """Ends one that cannot go on."""
    if evaluation.attempt > 0:
        delete_files(session, evaluation)
    evaluation.status, evaluation.lease_expires_at, evaluation.finished_at = "failed", None, func.now()
    evaluation.failure, evaluation.waits = failure.model_dump(mode="json"), None


def _locked(session: Session, evaluation_id: str, attempt: int) -> JobEvaluation | None:
    return session.scalar(select(JobEvaluation).where(*_mine(evaluation_id, attempt)).with_for_update())


def _mine(evaluation_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return JobEvaluation.id == evaluation_id, JobEvaluation.attempt == attempt, JobEvaluation.status == "running"


def artifact(evaluation: JobEvaluation) -> Artifact:
    """The file of its rows."""
    name = f"{evaluation.id}.jsonl"
    return Artifact(
        job_id=evaluation.job_id, name=name, kind="evaluation", path=str(folder(evaluation) / name), bytes=0
    )


def folder(evaluation: JobEvaluation) -> Path:
    """The folder of an attempt, relative to the runs folder."""
    return Path(evaluation.job_id, "evaluations", f"{evaluation.id}-{evaluation.attempt}")
