"""Exports: a job's adapter in other formats, requested by its owner and made by a worker's publishing process."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from contract import ids
from contract.export import ExportFormat
from contract.failure import Failure, FailureCode
from contract.run_dir import RunDir, partial_path
from store import artifacts, deletions
from store.artifacts import ADAPTER, Digests
from store.errors import ArtifactNotFound, ExportNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact, Export
from store.paging import newest_first

_MOST_CLAIMS = 5
"""Number of claims, by workers that were lost or stopped, after which it fails."""


@dataclass(frozen=True)
class Wanted:
    format: ExportFormat
    source: str = ADAPTER
    """Name of an adapter or checkpoint, or artifacts.BEST."""
    shard_size: str | None = None
    """The largest file of a merged model's weights; None is 5GB."""


def request(session: Session, job_id: str, wanted: Wanted, owner: str | None) -> tuple[Export, bool]:
    """The export of an adapter or checkpoint, and whether it is new: an earlier one that has not failed is returned
    again. Raises JobNotFound, ArtifactNotFound."""
    job = jobs.lock(session, job_id, owner)
    artifact = exported_from(session, job.id, wanted.source)
    same = (
        Export.job_id == job_id,
        Export.format == wanted.format,
        Export.source == artifact.name,
        Export.shard_size.is_not_distinct_from(wanted.shard_size),
    )
    found = session.scalar(select(Export).where(*same, Export.status != "failed"))
    if found is not None:
        return found, False
    export = Export(
        id=ids.new_id(ids.EXPORT),
        job_id=job_id,
        format=wanted.format,
        shard_size=wanted.shard_size,
        source=artifact.name,
        status="queued",
        attempt=0,
    )
    session.add(export)
    session.flush()
    return export, True


def exported_from(session: Session, job_id: str, source: str) -> Artifact:
    """The adapter or checkpoint of that name. Raises ArtifactNotFound."""
    artifact = artifacts.get(session, job_id, source)
    if artifact.kind not in ("adapter", "checkpoint"):
        raise ArtifactNotFound(job_id, artifact.name, " that can be exported: give an adapter or a checkpoint")
    return artifact


def get(session: Session, job_id: str, export_id: str) -> Export:
    """An export of the job. Raises ExportNotFound."""
    export = session.get(Export, export_id)
    if export is None or export.job_id != job_id:
        raise ExportNotFound(job_id, export_id)
    return export


def list_exports(session: Session, job_id: str, limit: int, after: str | None) -> list[Export]:
    """One page of exports, newest first; `after` is the last id of the page before. Raises ExportNotFound."""
    last = None if after is None else get(session, job_id, after)
    query = select(Export).where(Export.job_id == job_id)
    return list(session.scalars(newest_first(query, Export, limit, last)))


def claim(session: Session, worker: str, lease: timedelta) -> Export | None:
    """Starts a new attempt by the worker at the export that has waited longest, or whose worker was lost."""
    lost = (Export.status == "running") & (Export.lease_expires_at < func.now())
    waiting = select(Export.id).where((Export.status == "queued") | lost).order_by(Export.created_at).limit(1)
    chosen = session.scalar(waiting.with_for_update(skip_locked=True))
    if chosen is None:
        return None
    export = session.get_one(Export, chosen, populate_existing=True)
    if export.attempt >= _MOST_CLAIMS:
        message = f"its worker was lost {export.attempt} times while it was made; its memory may be too small"
        _fail(export, Failure(code=FailureCode.WORKER_LOST, message=message))
        return None
    if export.attempt > 0:
        # What the attempt before has uploaded, and what a killed worker has left. The log stays.
        run = RunDir(folder(export))
        deletions.add(session, map(str, (run.adapter, run.exported, partial_path(run.exported))))
    claimed = {
        "status": "running",
        "attempt": Export.attempt + 1,
        "worker": worker,
        "lease_expires_at": func.now() + lease,
    }
    return session.scalars(
        update(Export).where(Export.id == chosen).values(claimed).returning(Export),
        execution_options={"populate_existing": True, "synchronize_session": False},
    ).one()


def renew(session: Session, export_id: str, attempt: int, lease: timedelta) -> bool:
    """Extends the lease; False where the attempt has lost it."""
    mine = _mine(export_id, attempt)
    renewed = update(Export).where(*mine).values(lease_expires_at=func.now() + lease).returning(Export.id)
    return session.scalar(renewed) is not None


def requeue(session: Session, export_id: str, attempt: int) -> None:
    """Puts an export back in the queue, for another worker or for this one after its restart."""
    values = {"status": "queued", "worker": None, "lease_expires_at": None}
    session.execute(update(Export).where(*_mine(export_id, attempt)).values(values))


def succeed(session: Session, export_id: str, attempt: int, made: Artifact, digests: Digests) -> bool:
    """Ends an export whose files are complete in the storage, and adds that as an artifact; the same again changes
    nothing. False where the attempt has lost its lease, or the model was deleted."""
    try:
        jobs.hold(session, made.job_id)  # first: a job is always locked before its exports
    except JobNotFound:
        return False
    export = _locked(session, export_id, attempt)
    if export is None:
        # The commit may have succeeded although the database went away before it said so.
        done = (Export.id == export_id, Export.attempt == attempt, Export.status == "succeeded")
        return session.scalar(select(Export.id).where(*done)) is not None
    export.status, export.lease_expires_at, export.finished_at = "succeeded", None, func.now()
    export.artifact = made.name
    artifacts.add(session, made)
    artifacts.mark_published(session, made, digests)
    return True


def fail_open(session: Session, job_id: str, failure: Failure) -> None:
    """Fails the exports of a locked job that are not done. A worker that is making one stops within a second."""
    open_ones = (Export.job_id == job_id, Export.status.in_(["queued", "running"]))
    found = session.scalars(select(Export).where(*open_ones).order_by(Export.id).with_for_update()).all()
    for export in found:
        _fail(export, failure)
    deletions.add(session, [str(folder(export)) for export in found if export.attempt > 0])


def fail(session: Session, export_id: str, attempt: int, failure: Failure) -> None:
    """Ends an export that cannot be made. What it has uploaded is deleted; its log stays."""
    export = _locked(session, export_id, attempt)
    if export is not None:
        _fail(export, failure)
        deletions.add(session, [artifact(export).path])


def _fail(export: Export, failure: Failure) -> None:
    export.status, export.lease_expires_at, export.finished_at = "failed", None, func.now()
    export.failure = failure.model_dump(mode="json")


def _locked(session: Session, export_id: str, attempt: int) -> Export | None:
    return session.scalar(select(Export).where(*_mine(export_id, attempt)).with_for_update())


def _mine(export_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return Export.id == export_id, Export.attempt == attempt, Export.status == "running"


def artifact(export: Export) -> Artifact:
    """The artifact that the export makes."""
    form = "-".join(filter(None, [export.format, export.shard_size]))
    name = f"{form}.tar" if export.source == ADAPTER else f"{form}-{export.source}"
    path = folder(export) / "exported"
    return Artifact(job_id=export.job_id, name=name, kind=export.format, path=str(path), bytes=0)


def folder(export: Export) -> Path:
    """The work folder of an attempt, relative to the runs folder."""
    return Path(export.job_id, "exports", f"{export.id}-{export.attempt}")
