"""What a job leaves to download. The files are in its run folders, and then in the storage; these are the rows that
name them. One is published when its files are whole in the storage, and digested: until then nobody is told of it."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from contract.events import Checkpoint
from contract.status import JobStatus
from storage.archive import Archive
from store.errors import ArtifactNotFound
from store.models import Artifact, Job, Metric, Worker
from store.scheduling.workers import SILENCE

ADAPTER = "adapter.tar.gz"
BEST = "best.tar.gz"
"""Names the best adapter or checkpoint; no artifact is listed by it."""

REPORT = {"metrics": "metrics.csv", "curve": "loss.png", "card": "README.md"}
"""What is made when a job ends, by its kind."""
REPORT_FOLDER = "report"
"""Of a run folder."""


@dataclass(frozen=True)
class File:
    name: str
    """With "/" between its folders."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Digests:
    """Of an artifact's bytes."""

    files: list[File]
    bytes: int
    """Of a download, as all that follows."""
    sha256: str
    crc32: int | None


def run_path(job_id: str, attempt: int) -> Path:
    """An attempt's run folder, relative to the runs folder."""
    return Path(job_id, f"attempt-{attempt}")


def add_checkpoint(session: Session, job_id: str, attempt: int, event: Checkpoint) -> None:
    name = ADAPTER if event.final else f"checkpoint-{event.step}.tar.gz"
    kind = "adapter" if event.final else "checkpoint"
    path = str(run_path(job_id, attempt) / event.path)
    artifact = Artifact(job_id=job_id, name=name, kind=kind, step=event.step, path=path, bytes=event.bytes)
    artifact.eval_loss = event.eval_loss
    put(session, artifact)


def add_end(session: Session, job_id: str, attempt: int, log: Path, log_bytes: int | None, report: bool) -> None:
    """What the end of an attempt leaves: its log, in `log` of its run folder, where there is one; and where it is the
    job's end too, a report, if there is anything to report of."""
    run = run_path(job_id, attempt)
    if log_bytes is not None:
        put(session, Artifact(job_id=job_id, name=log.name, kind="log", path=str(run / log), bytes=log_bytes))
    if not report or session.scalar(select(Metric.step).where(Metric.job_id == job_id).limit(1)) is None:
        return
    for kind, name in REPORT.items():
        put(session, Artifact(job_id=job_id, name=name, kind=kind, path=str(run / REPORT_FOLDER / name), bytes=0))


def put(session: Session, artifact: Artifact) -> None:
    """A later attempt's artifact takes the place of an earlier one's. One that is told again stays as it is."""
    row = {
        "job_id": artifact.job_id,
        "name": artifact.name,
        "kind": artifact.kind,
        "step": artifact.step,
        "path": artifact.path,
        "bytes": artifact.bytes,
        "eval_loss": artifact.eval_loss,
    }
    unpublished = {"files": None, "sha256": None, "crc32": None, "published_at": None}
    put = insert(Artifact).values(row)
    another = (Artifact.path != put.excluded.path) | Artifact.published_at.is_(None)
    put = put.on_conflict_do_update(index_elements=["job_id", "name"], set_=row | unpublished, where=another)
    session.execute(put)


def unpublished(session: Session, worker: str) -> list[tuple[Artifact, Job]]:
    """What is to be published by the worker: of the jobs that it has run last, and of those whose worker is not heard
    of. An adapter waits for the card that it has in it, until its job has ended."""
    heard = select(Worker.name).where(Worker.name == Job.worker, Worker.seen_at >= func.now() - SILENCE).exists()
    mine = (Job.worker == worker) | ~heard
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


def unpublished_adapter(session: Session, job_id: str) -> Artifact | None:
    """The job's adapter, as long as its files may still be added to."""
    adapter = session.get(Artifact, (job_id, ADAPTER))
    return adapter if adapter is not None and adapter.published_at is None else None


def are_published(session: Session, job_id: str) -> bool:
    """Whether nothing of the job waits for that."""
    waiting = select(Artifact.name).where(Artifact.job_id == job_id, Artifact.published_at.is_(None))
    return session.scalar(waiting.limit(1)) is None


def publish(session: Session, artifact: Artifact, digests: Digests | None) -> None:
    """Its files are whole in the storage, or, with None, nobody will ever have them. Nothing is written where another
    attempt's has taken its place."""
    mine = (
        Artifact.job_id == artifact.job_id,
        Artifact.name == artifact.name,
        Artifact.path == artifact.path,
        Artifact.published_at.is_(None),
    )
    values = {"published_at": func.now()} | ({} if digests is None else asdict(digests))
    session.execute(update(Artifact).where(*mine).values(values))


def of_job(session: Session, job_id: str) -> list[Artifact]:
    """Those that are published."""
    published = (Artifact.job_id == job_id, Artifact.sha256.is_not(None))
    return list(session.scalars(select(Artifact).where(*published).order_by(Artifact.name)))


def weights(session: Session, job_id: str) -> list[Artifact]:
    """What a job has made of a model: its adapters, and models with one merged in."""
    kinds = Artifact.kind.in_(["adapter", "checkpoint", "merged"])
    return list(session.scalars(select(Artifact).where(Artifact.job_id == job_id, kinds)))


def remove(session: Session, found: Iterable[Artifact]) -> None:
    """Takes them off the list; their files are to be gone by then."""
    for artifact in found:
        session.execute(delete(Artifact).where(Artifact.job_id == artifact.job_id, Artifact.name == artifact.name))


def best(found: Iterable[Artifact]) -> Artifact | None:
    """The adapter or checkpoint with the lowest evaluation loss, the earliest of several; None without evaluations.

    A last checkpoint and the adapter are the same weights: the adapter is named then.
    """
    measured = (each for each in found if each.eval_loss is not None)
    return min(measured, key=lambda each: (each.eval_loss, each.step, each.name), default=None)


def get(session: Session, job_id: str, name: str) -> Artifact:
    """The published artifact of that name; BEST is the best one by its evaluation loss. Raises ArtifactNotFound."""
    if name == BEST:
        artifact = best(of_job(session, job_id))
        why = ": nothing that it has saved was evaluated; evaluation.fraction above 0 does"
    else:
        artifact = session.get(Artifact, (job_id, name))
        waits = artifact is not None and artifact.published_at is None
        why = " yet: it is not whole in the storage; try again in a few seconds" if waits else ""
    if artifact is None or artifact.sha256 is None:
        raise ArtifactNotFound(job_id, name, why)
    return artifact


def is_archive(artifact: Artifact) -> bool:
    """A folder, which is downloaded as one file."""
    return artifact.name.endswith(".tar.gz")


def files(artifact: Artifact) -> list[File]:
    """Of a published one."""
    return [File(**each) for each in artifact.files or []]


def archive(artifact: Artifact, sizes: Iterable[tuple[str, int]]) -> Archive:
    """Of a folder's files, by name; below its own name when it is unpacked, whatever name it is asked by."""
    return Archive(artifact.name.removesuffix(".tar.gz"), list(sizes))


def key(artifact: Artifact, file: str | None = None) -> str:
    """In the storage: of a single file, or of one in a folder."""
    return f"runs/{artifact.path}" if file is None else f"runs/{artifact.path}/{file}"
