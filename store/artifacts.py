"""What a job leaves to download. The files are in its run folders; these are the rows that name them."""

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.events import Checkpoint
from store.errors import ArtifactNotFound
from store.models import Artifact


def run_path(job_id: str, attempt: int) -> Path:
    """An attempt's run folder, relative to the runs folder."""
    return Path(job_id, f"attempt-{attempt}")


def add_checkpoint(session: Session, job_id: str, attempt: int, event: Checkpoint) -> None:
    name = "adapter.tar.gz" if event.final else f"checkpoint-{event.step}.tar.gz"
    kind = "adapter" if event.final else "checkpoint"
    path = str(run_path(job_id, attempt) / event.path)
    _put(session, Artifact(job_id=job_id, name=name, kind=kind, step=event.step, path=path, bytes=event.bytes))


def add_log(session: Session, job_id: str, attempt: int, log: Path, size: int) -> None:
    """The log of the latest attempt; `log` is relative to its run folder."""
    path = str(run_path(job_id, attempt) / log)
    _put(session, Artifact(job_id=job_id, name=log.name, kind="log", step=None, path=path, bytes=size))


def _put(session: Session, artifact: Artifact) -> None:
    """A later attempt's artifact takes the place of an earlier one's."""
    row = {
        "job_id": artifact.job_id,
        "name": artifact.name,
        "kind": artifact.kind,
        "step": artifact.step,
        "path": artifact.path,
        "bytes": artifact.bytes,
    }
    session.execute(insert(Artifact).values(row).on_conflict_do_update(index_elements=["job_id", "name"], set_=row))


def of_job(session: Session, job_id: str) -> list[Artifact]:
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)))


def get(session: Session, job_id: str, name: str) -> Artifact:
    """Raises ArtifactNotFound."""
    artifact = session.get(Artifact, (job_id, name))
    if artifact is None:
        raise ArtifactNotFound(job_id, name)
    return artifact
