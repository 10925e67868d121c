"""Exports: models merged from a job's adapter, requested by its owner and made by a worker's publishing process."""

from datetime import timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from contract import ids
from contract.failure import Failure, FailureCode
from store import artifacts
from store.artifacts import ADAPTER, Digests
from store.errors import ArtifactNotFound, ExportNotFound, JobNotFound
from store.jobs import jobs
from store.models import Artifact, Export
from store.paging import newest_first

_MOST_CLAIMS = 5
"""Number of claims, by workers that were lost or stopped, after which it fails."""


def request(session: Session, job_id: str, source: str, owner: str | None) -> tuple[Export, bool]:
    """The export of an adapter or checkpoint as a merged model, and whether it is new: an earlier one that has not
    failed is returned again. Raises JobNotFound, ArtifactNotFound."""
    job = jobs.lock(session, job_id, owner)
    artifact = artifacts.get(session, job.id, source)
    if artifact.kind not in ("adapter", "checkpoint"):
        raise ArtifactNotFound(job_id, artifact.name, " that can be merged: give an adapter or a checkpoint")
    same = (Export.job_id == job_id, Export.format == "merged", Export.source == artifact.name)
    found = session.scalar(select(Export).where(*same, Export.status != "failed"))
    if found is not None:
        return found, False
    export = Export(
        id=ids.new_id(ids.EXPORT),
        job_id=job_id,
        format="merged",
        source=artifact.name,
        status="queued",
        attempt=0,
    )
    session.add(export)
    session.flush()
    return export, True


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


def succeed(session: Session, export_id: str, attempt: int, artifact: Artifact, digests: Digests) -> bool:
    """Ends an export whose model is complete in the storage, and adds that as an artifact. False where the attempt has
    lost its lease."""
    try:
        jobs.hold(session, artifact.job_id)  # first: a job is always locked before its exports
    except JobNotFound:
        return False
    export = _locked(session, export_id, attempt)
    if export is None:
        return False
    export.status, export.lease_expires_at, export.finished_at = "succeeded", None, func.now()
    export.artifact = artifact.name
    artifacts.add(session, artifact)
    artifacts.mark_published(session, artifact, digests)
    return True


def fail(session: Session, export_id: str, attempt: int, failure: Failure) -> None:
    export = _locked(session, export_id, attempt)
    if export is not None:
        _fail(export, failure)


def _fail(export: Export, failure: Failure) -> None:
    export.status, export.lease_expires_at, export.finished_at = "failed", None, func.now()
    export.failure = failure.model_dump(mode="json")


def _locked(session: Session, export_id: str, attempt: int) -> Export | None:
    return session.scalar(select(Export).where(*_mine(export_id, attempt)).with_for_update())


def _mine(export_id: str, attempt: int) -> tuple[ColumnElement[bool], ...]:
    return Export.id == export_id, Export.attempt == attempt, Export.status == "running"


def merged(export: Export) -> Artifact:
    """The artifact that the export makes."""
    name = "merged.tar" if export.source == ADAPTER else f"merged-{export.source}"
    path = folder(export) / "merged"
    return Artifact(job_id=export.job_id, name=name, kind="merged", path=str(path), bytes=0)


def folder(export: Export) -> Path:
    """The work folder of an attempt, relative to the runs folder."""
    return Path(export.job_id, "exports", f"{export.id}-{export.attempt}")
