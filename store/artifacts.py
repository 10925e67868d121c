"""Artifacts: what a job leaves to download. Its files are in the run folders and then in the storage; the rows name
them. An artifact is published, and listed, once its files are complete in the storage and digested."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from sqlalchemy import delete as sa_delete
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.events import CheckpointEvent
from contract.export import ExportFormat
from contract.status import JobStatus
from storage.archive import Archive
from store import deletions
from store.errors import ArtifactNotFound
from store.models import Artifact, Job, StepMetric
from store.scheduling import workers

ADAPTER = "adapter.tar"
BEST = "best.tar"
"""A name that stands for the best adapter or checkpoint; no row has it."""

REPORT = {
    "metrics": "metrics.csv",
    "results": "results.csv",
    "tensorboard": "events.out.tfevents",
    "curve": "loss.png",
    "card": "README.md",
}
"""The files that the publishing process makes when a job ends, by kind. TensorBoard's only where the recipe says so."""
REPORT_FOLDER = "report"
"""The folder of these files in a run folder."""


@dataclass(frozen=True)
class ArtifactFile:
    name: str
    """Path with "/" between its folders."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Digests:
    """Sizes and digests of an artifact."""

    files: list[ArtifactFile]
    bytes: int
    """Size of a download."""
    sha256: str
    """Digest of a download."""


def run_path(job_id: str, attempt: int) -> Path:
    """An attempt's run folder, relative to the runs folder."""
    return Path(job_id, f"attempt-{attempt}")


def add_checkpoint(session: Session, job_id: str, attempt: int, event: CheckpointEvent) -> None:
    name = ADAPTER if event.final else f"checkpoint-{event.step}.tar"
    kind = "adapter" if event.final else "checkpoint"
    path = str(run_path(job_id, attempt) / event.path)
    artifact = Artifact(job_id=job_id, name=name, kind=kind, step=event.step, path=path, bytes=event.bytes)
    artifact.eval_loss = event.eval_loss
    artifact.reward_accuracy, artifact.reward_margin = event.reward_accuracy, event.reward_margin
    add(session, artifact)


def add_end(  # parameters: the columns of a row
    session: Session, job_id: str, attempt: int, log: Path, log_bytes: int | None, report: bool
) -> None:
    """Adds the artifacts of an attempt's end: the log, if it has any bytes, at `log` in the run folder; and with
    `report`, at the job's end, the report, if a step was trained. Six parameters: the log is optional."""
    run = run_path(job_id, attempt)
    if log_bytes is not None:
        add(session, Artifact(job_id=job_id, name=log.name, kind="log", path=str(run / log), bytes=log_bytes))
    if not report or session.scalar(select(StepMetric.step).where(StepMetric.job_id == job_id).limit(1)) is None:
        return
    with_events = session.scalar(select(Job.recipe["tracking"]["tensorboard"].as_boolean()).where(Job.id == job_id))
    for kind, name in REPORT.items():
        if kind == "tensorboard" and not with_events:
            continue
        add(session, Artifact(job_id=job_id, name=name, kind=kind, path=str(run / REPORT_FOLDER / name), bytes=0))


def add(session: Session, artifact: Artifact) -> None:
    """Adds an artifact. It replaces that of an earlier attempt; the same one again changes nothing."""
    row = {
        "job_id": artifact.job_id,
        "name": artifact.name,
        "kind": artifact.kind,
        "step": artifact.step,
        "path": artifact.path,
        "bytes": artifact.bytes,
        "eval_loss": artifact.eval_loss,
        "reward_accuracy": artifact.reward_accuracy,
        "reward_margin": artifact.reward_margin,
    }
    unpublished = {"files": None, "sha256": None, "published_at": None}
    put = insert(Artifact).values(row)
    another = (Artifact.path != put.excluded.path) | Artifact.published_at.is_(None)
    put = put.on_conflict_do_update(index_elements=["job_id", "name"], set_=row | unpublished, where=another)
    session.execute(put)
    _count_again(session, artifact.job_id)


def list_unpublished(session: Session, worker: str) -> list[tuple[Artifact, Job]]:
    """The artifacts that a worker has to publish: those of the jobs that it ran last, and of jobs whose worker is
    silent. An adapter waits for its card as long as its job runs."""
    mine = (Job.worker == worker) | ~workers.alive(Job.worker)
    query = select(Artifact, Job).join(Job).where(Artifact.published_at.is_(None), mine)
    found = [(artifact, job) for artifact, job in session.execute(query.order_by(Artifact.created_at, Artifact.name))]
    return [
        (artifact, job)
        for artifact, job in found
        if artifact.kind != "adapter" or job.status is not JobStatus.RUNNING or _has_card(session, job)
    ]


def _has_card(session: Session, job: Job) -> bool:
    card = session.get(Artifact, (job.id, REPORT["card"]))
    run = run_path(job.id, job.attempt)
    return card is not None and card.published_at is not None and Path(card.path).is_relative_to(run)


def get_unpublished_adapter(session: Session, job_id: str) -> Artifact | None:
    """The job's adapter while files may still be added to it, else None."""
    adapter = session.get(Artifact, (job_id, ADAPTER))
    return adapter if adapter is not None and adapter.published_at is None else None


def all_published(session: Session, job_id: str) -> bool:
    """Whether the job has no artifact that waits to be published."""
    waiting = select(Artifact.name).where(Artifact.job_id == job_id, Artifact.published_at.is_(None))
    return session.scalar(waiting.limit(1)) is None


def mark_published(session: Session, artifact: Artifact, digests: Digests | None) -> None:
    """Records that the files are complete in the storage or, with None, that they are lost. Changes nothing if another
    attempt's artifact has replaced it."""
    mine = (
        Artifact.job_id == artifact.job_id,
        Artifact.name == artifact.name,
        Artifact.path == artifact.path,
        Artifact.published_at.is_(None),
    )
    _count_again(session, artifact.job_id)  # first: a job is always locked before its artifacts
    values = {"published_at": func.now()} | ({} if digests is None else asdict(digests))
    session.execute(update(Artifact).where(*mine).values(values))


def list_published(session: Session, job_id: str) -> list[Artifact]:
    """The published artifacts of a job, by name."""
    published = (Artifact.job_id == job_id, Artifact.sha256.is_not(None))
    return list(session.scalars(select(Artifact).where(*published).order_by(Artifact.name)))


def list_weights(session: Session, job_id: str) -> list[Artifact]:
    """The adapters of a job and the exports made from them."""
    kinds = Artifact.kind.in_(["adapter", "checkpoint", *get_args(ExportFormat)])
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id, kinds)))


def delete(session: Session, found: Iterable[Artifact]) -> None:
    """Deletes artifacts; a worker deletes their files. Another transaction may delete the same ones."""
    found = sorted(found, key=lambda each: (each.job_id, each.name))
    deletions.add(session, [artifact.path for artifact in found])
    for job_id in sorted({artifact.job_id for artifact in found}):
        _count_again(session, job_id)
    for artifact in found:
        its = (Artifact.job_id == artifact.job_id, Artifact.name == artifact.name, Artifact.path == artifact.path)
        session.execute(sa_delete(Artifact).where(*its))


def count_bytes(session: Session, job_id: str) -> int:
    return int(session.scalar(select(func.sum(Artifact.bytes)).where(Artifact.job_id == job_id)) or 0)


def _count_again(session: Session, job_id: str) -> None:
    """Has a worker measure again what the job has on disk."""
    measured = update(Job).where(Job.id == job_id, Job.measured_attempt > 0)
    session.execute(measured.values(measured_attempt=0))


def best(found: Iterable[Artifact]) -> Artifact | None:
    """The adapter or checkpoint with the best evaluation, the earliest of equals; None without evaluations. That is the
    highest reward accuracy, and then the largest reward margin, for a method with rewards, and otherwise the lowest
    loss: as trainer.evaluation has it.

    The last checkpoint has the weights of the adapter; the adapter is preferred then.
    """
    measured = (each for each in found if each.eval_loss is not None)
    return min(measured, key=lambda each: (_from_best(each), each.step, each.name), default=None)


def _from_best(artifact: Artifact) -> tuple[float, ...]:
    if artifact.reward_accuracy is None:
        return (artifact.eval_loss or 0.0,)
    return (-artifact.reward_accuracy, -(artifact.reward_margin or 0.0))


def get(session: Session, job_id: str, name: str) -> Artifact:
    """The published artifact of a name, or for BEST the best one. Raises ArtifactNotFound."""
    if name == BEST:
        artifact = best(list_published(session, job_id))
        why = ": nothing that it has saved was evaluated; evaluation.fraction above 0 does"
    else:
        artifact = session.get(Artifact, (job_id, name))
        waits = artifact is not None and artifact.published_at is None
        why = " yet: it is not whole in the storage; try again in a few seconds" if waits else ""
    if artifact is None or artifact.sha256 is None:
        raise ArtifactNotFound(job_id, name, why)
    return artifact


def is_archive(artifact: Artifact) -> bool:
    """Whether it is a folder, which is downloaded as one archive."""
    return artifact.name.endswith(".tar")


def files(artifact: Artifact) -> list[ArtifactFile]:
    """The files of a published artifact."""
    return [ArtifactFile(**each) for each in artifact.files or []]


def archive(artifact: Artifact, sizes: Iterable[tuple[str, int]]) -> Archive:
    """The archive of a folder's files. It unpacks to a folder of the artifact's own name, also when downloaded as
    BEST."""
    return Archive(artifact.name.removesuffix(".tar"), list(sizes))


def key(artifact: Artifact, file: str | None = None) -> str:
    """The key in the storage of a single file, or of `file` in a folder."""
    return f"runs/{artifact.path}" if file is None else f"runs/{artifact.path}/{file}"
