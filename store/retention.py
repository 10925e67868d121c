"""Deletes what has been kept for as long as the settings say, and measures what run folders hold.

Each job is cleaned in a transaction that locks its row, so that nobody retries it meanwhile. Several workers may clean
at once: each takes the jobs that no other has locked.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select
from sqlalchemy.orm import Session, aliased

from contract.status import TERMINAL, JobStatus
from runtime.settings import StoreSettings
from storage.backends import Storage
from store import artifacts, datasets, deletions
from store.errors import DatasetInUse, DatasetNotFound
from store.models import Artifact, Dataset, Export, Job
from store.run_files import FileUse, RunFile, delete_files, list_files
from store.session import Sessions

_SETTLED = timedelta(minutes=1)
"""How long after its end a job's files may still change: they are published, and training checkpoints pruned."""

_AT_ONCE = 500
"""Most rows that one transaction deletes."""


class Kind(StrEnum):
    """What is kept for a time, each by the setting of its name."""

    RUN_FOLDERS = "run_folders"
    TRAINING_CHECKPOINTS = "training_checkpoints"
    LOGS = "logs"
    DATASETS = "datasets"
    EXPORTS = "exports"


_USES = {Kind.RUN_FOLDERS: FileUse.LEFTOVER, Kind.TRAINING_CHECKPOINTS: FileUse.TRAINING_CHECKPOINT}


@dataclass(frozen=True)
class Freed:
    """What was, or would be, deleted of each kind."""

    count: Counter[Kind] = field(default_factory=Counter)
    """Number of files in run folders, logs, datasets or exports."""
    bytes: Counter[Kind] = field(default_factory=Counter)

    def add(self, kind: Kind, sizes: Collection[int]) -> None:
        self.count[kind] += len(sizes)
        self.bytes[kind] += sum(sizes)


@dataclass(frozen=True)
class Retention:
    sessions: Sessions
    settings: StoreSettings
    storage: Storage
    stopping: Callable[[], bool] = lambda: False

    def measure(self) -> None:
        """Measures the run folders of the jobs that have ended an attempt since they were measured last."""
        while not self.stopping():
            with self.sessions.begin() as session:
                job = session.scalar(_UNMEASURED)
                if job is None:
                    return
                files = self._list(session, job)
                job.run_bytes, job.measured_attempt = self._beside_artifacts(files), job.attempt
                job.artifact_bytes = artifacts.count_bytes(session, job.id)

    def clean(self, dry_run: bool = False) -> Freed:
        """Deletes what is due, or with `dry_run` only says what is. Raises StorageUnavailable."""
        freed = Freed()
        self._clean_jobs(freed, dry_run)
        self._clean_logs(freed, dry_run)
        self._clean_exports(freed, dry_run)
        self._clean_datasets(freed, dry_run)
        return freed

    def _clean_jobs(self, freed: Freed, dry_run: bool) -> None:
        with self.sessions.begin() as session:
            job_ids = session.scalars(self._due_jobs().with_only_columns(Job.id)).all()
        for job_id in job_ids:
            if self.stopping():
                return
            with self.sessions.begin() as session:
                still_due = self._due_jobs().where(Job.id == job_id)
                job = session.scalar(still_due.with_for_update(of=Job, skip_locked=True))
                if job is not None:
                    self._count(freed, self._clean_job(session, job, dry_run))

    def _clean_job(self, session: Session, job: Job, dry_run: bool) -> list[RunFile]:
        """The files that are due, deleted unless `dry_run`."""
        files = self._list(session, job)
        due = self._due_files(session, job, files)
        if dry_run:
            return due
        gone = delete_files(self.settings.runs, due)
        job.run_bytes = self._beside_artifacts(set(files) - set(gone))
        job.cleaned_at = session.scalar(select(func.now()))
        return gone

    def _list(self, session: Session, job: Job) -> list[RunFile]:
        return list_files(session, self.settings.runs, job, self.storage.remote)

    def _beside_artifacts(self, files: Iterable[RunFile]) -> int:
        return sum(file.bytes for file in files if self.storage.remote or file.use is not FileUse.ARTIFACT)

    def _kept(self) -> dict[Kind, timedelta]:
        """How long what is in run folders is kept after the end of the job, without what is kept forever."""
        kept = {
            Kind.RUN_FOLDERS: self.settings.keep_run_folders,
            Kind.TRAINING_CHECKPOINTS: self.settings.keep_training_checkpoints,
        }
        return {kind: time for kind, time in kept.items() if time is not None}

    def _due_jobs(self) -> Select[Job]:
        """The jobs in whose run folders something has become due since they were cleaned. A job from which another
        starts is left alone until that one has ended: its worker may be reading the adapter."""
        due = [_is_due(kept) for kept in self._kept().values()]
        other = aliased(Job)
        needed = select(other.id).where(other.start_from_job == Job.id, other.status.not_in(TERMINAL)).exists()
        return select(Job).where(or_(*due) if due else Job.id.is_(None), ~needed)

    def _due_files(self, session: Session, job: Job, files: Iterable[RunFile]) -> list[RunFile]:
        now = session.scalar(select(func.now()))
        assert now is not None
        assert job.finished_at is not None
        uses = {_USES[kind] for kind, kept in self._kept().items() if job.finished_at + max(kept, _SETTLED) <= now}
        return [file for file in files if file.use in uses]

    @staticmethod
    def _count(freed: Freed, files: Iterable[RunFile]) -> None:
        files = list(files)
        for kind, use in _USES.items():
            freed.add(kind, [file.bytes for file in files if file.use is use])

    def _clean_logs(self, freed: Freed, dry_run: bool) -> None:
        if (kept := self.settings.keep_logs) is None:
            return
        old = (Job.status.in_(TERMINAL), Job.finished_at < func.now() - kept)
        due = select(Artifact).join(Job).where(Artifact.kind == "log", Artifact.published_at.is_not(None), *old)
        while not self.stopping():
            with self.sessions.begin() as session:
                found = session.scalars(due.limit(None if dry_run else _AT_ONCE)).all()
                freed.add(Kind.LOGS, [log.bytes for log in found])
                if dry_run or not found:
                    return
                artifacts.delete(session, found)

    def _clean_exports(self, freed: Freed, dry_run: bool) -> None:
        if (kept := self.settings.keep_exports) is None:
            return
        its = (Artifact.job_id == Export.job_id) & (Artifact.name == Export.artifact)
        old = (Export.status == "succeeded", Export.finished_at < func.now() - kept)
        due = select(Export, Artifact).join(Artifact, its).where(*old)
        while not self.stopping():
            with self.sessions.begin() as session:
                found = session.execute(due.limit(None if dry_run else _AT_ONCE)).all()
                freed.add(Kind.EXPORTS, [artifact.bytes for _, artifact in found])
                if dry_run or not found:
                    return
                artifacts.delete(session, [artifact for _, artifact in found])
                session.execute(delete(Export).where(Export.id.in_([export.id for export, _ in found])))
                # The whole folders of the exports, with the logs of their exporters.
                deletions.add(session, [str(Path(artifact.path).parent) for _, artifact in found])

    def _clean_datasets(self, freed: Freed, dry_run: bool) -> None:
        if (kept := self.settings.keep_datasets) is None:
            return
        with self.sessions.begin() as session:
            due = session.scalars(_unused_datasets(kept)).all()
            shared = _shared(session, due)
        sizes = {each.sha256: each.bytes for each in due if each.sha256 not in shared}
        freed.add(Kind.DATASETS, sizes.values())
        freed.count[Kind.DATASETS] = len(due)
        for dataset in due if not dry_run else ():
            if self.stopping():
                return
            self._delete_dataset(dataset.id)

    def _delete_dataset(self, dataset_id: str) -> None:
        try:
            with self.sessions.begin() as session:
                sha256 = datasets.remove(session, dataset_id, None)
                if sha256 is not None and datasets.delete_unused_blob(session, self.storage, sha256):
                    (self.settings.fetched_datasets / sha256).unlink(missing_ok=True)
        except (DatasetNotFound, DatasetInUse):
            pass  # another has deleted it, or a job has begun to need it


def _is_due(kept: timedelta) -> ColumnElement[bool]:
    """Whether a job ended `kept` ago and was not cleaned since."""
    due_at = Job.finished_at + max(kept, _SETTLED)
    return and_(Job.status.in_(TERMINAL), due_at <= func.now(), or_(Job.cleaned_at.is_(None), Job.cleaned_at < due_at))


def _unused_datasets(kept: timedelta) -> Select[Dataset]:
    """The uploaded datasets that no job has used for so long."""
    lately = Job.status.not_in(TERMINAL) | (Job.finished_at > func.now() - kept)
    used = select(Job.training_file).where(lately, Job.training_file.is_not(None))
    validated = select(Job.validation_file).where(lately, Job.validation_file.is_not(None))
    old = (Dataset.sha256.is_not(None), Dataset.created_at < func.now() - kept)
    return select(Dataset).where(*old, Dataset.id.not_in(used), Dataset.id.not_in(validated))


def _shared(session: Session, found: Collection[Dataset]) -> set[str | None]:
    """The digests of these datasets that other datasets have too."""
    its, ids = {each.sha256 for each in found}, [each.id for each in found]
    return set(session.scalars(select(Dataset.sha256).where(Dataset.sha256.in_(its), Dataset.id.not_in(ids))))


def _unmeasured() -> Select[Job]:
    settled = Job.finished_at.is_(None) | (Job.finished_at < func.now() - _SETTLED)
    ended = (Job.status != JobStatus.RUNNING, Job.measured_attempt < Job.attempt, settled)
    return select(Job).where(*ended).order_by(Job.id).limit(1).with_for_update(skip_locked=True)


_UNMEASURED = _unmeasured()
