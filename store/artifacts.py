"""What a job leaves to download. The files are in its run folders; these are the rows that name them."""

import logging
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.events import Checkpoint
from store.errors import ArtifactNotFound
from store.models import Artifact

log = logging.getLogger(__name__)

BEST = "best.tar.gz"
"""Names the best adapter or checkpoint; no artifact is listed by it."""


def run_path(job_id: str, attempt: int) -> Path:
    """An attempt's run folder, relative to the runs folder."""
    return Path(job_id, f"attempt-{attempt}")


def add_checkpoint(session: Session, job_id: str, attempt: int, event: Checkpoint) -> None:
    name = "adapter.tar.gz" if event.final else f"checkpoint-{event.step}.tar.gz"
    kind = "adapter" if event.final else "checkpoint"
    path = str(run_path(job_id, attempt) / event.path)
    artifact = Artifact(job_id=job_id, name=name, kind=kind, step=event.step, path=path, bytes=event.bytes)
    artifact.eval_loss = event.eval_loss
    _put(session, artifact)


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
        "eval_loss": artifact.eval_loss,
    }
    session.execute(insert(Artifact).values(row).on_conflict_do_update(index_elements=["job_id", "name"], set_=row))


def of_job(session: Session, job_id: str) -> list[Artifact]:
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name)))


def best(found: Iterable[Artifact]) -> Artifact | None:
    """The adapter or checkpoint with the lowest evaluation loss, the earliest of several; None without evaluations.

    A last checkpoint and the adapter are the same weights: the adapter is named then.
    """
    measured = (each for each in found if each.eval_loss is not None)
    return min(measured, key=lambda each: (each.eval_loss, each.step, each.name), default=None)


def get(session: Session, job_id: str, name: str) -> Artifact:
    """The artifact of that name; BEST is the best one by its evaluation loss. Raises ArtifactNotFound."""
    artifact = best(of_job(session, job_id)) if name == BEST else session.get(Artifact, (job_id, name))
    if artifact is None:
        why = ": nothing that it has saved was evaluated; evaluation.share above 0 does" if name == BEST else ""
        raise ArtifactNotFound(job_id, name, why)
    return artifact


def locate(runs: Path, artifact: Artifact) -> Path | None:
    """Its file or folder, absolute; None where it is gone, or not below `runs`."""
    try:
        path = (runs / artifact.path).resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: links that go in circles
        return None
    if not path.is_relative_to(runs.resolve()):
        log.error("artifact %s of job %s leads out of %s, to %s", artifact.name, artifact.job_id, runs, path)
        return None
    return path
