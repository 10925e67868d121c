"""Publishes what jobs have saved: takes it into the storage, and digests it; makes a job's report before that.

The rows are the truth: what is unpublished when a worker dies is published by the next one of its name, or, where none
comes, by another.
"""

import logging
import shutil
from pathlib import Path

from contract.failure import InputError
from contract.locate import locate_model
from storage.backends import Folder, Storage, replacing
from store import artifacts
from store.artifacts import REPORT, Digests
from store.jobs.report import gather
from store.models import Artifact, Job
from store.session import Sessions
from worker.publishing import report, upload
from worker.run_output import clear_log
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def publish_all(sessions: Sessions, settings: WorkerSettings, storage: Storage) -> None:
    """All that this worker has to publish now. Raises StorageUnavailable, and OperationalError where the database is
    away: what is left is published the next time."""
    while True:
        with sessions.begin() as session:
            waiting = artifacts.unpublished(session, settings.worker)
        there = [(artifact, job) for artifact, job in waiting if _run(settings, artifact).is_dir()]
        if not there:
            return
        for artifact, job in sorted(there, key=lambda each: _turn(each[0])):
            _publish(sessions, settings, storage, artifact, job)


def _run(settings: WorkerSettings, artifact: Artifact) -> Path:
    job_id, attempt = Path(artifact.path).parts[:2]
    return settings.runs / job_id / attempt


def _turn(artifact: Artifact) -> int:
    """The card shows the curve, and lies in the adapter."""
    kinds = [*REPORT]
    return kinds.index(artifact.kind) if artifact.kind in kinds else len(kinds)


def _publish(sessions: Sessions, settings: WorkerSettings, storage: Storage, artifact: Artifact, job: Job) -> None:
    home = Folder(settings.home)
    digests: Digests | None = None
    try:
        if artifact.kind in REPORT:
            _make(sessions, settings, artifact, job)
        if artifact.kind != "log" or _is_cleared(home, artifact):
            digests = upload.put(storage, home, artifact)
    except FileNotFoundError as error:
        log.error("job %s: %s is not to be had: %s", job.id, artifact.name, error)
    with sessions.begin() as session:
        artifacts.publish(session, artifact, digests)


def _is_cleared(home: Folder, artifact: Artifact) -> bool:
    """Whether a log is without secrets now. Raises FileNotFoundError."""
    path = home.local_path(artifacts.key(artifact))
    try:
        clear_log(path)
    except OSError:
        # Such as a full disk: no reason to keep a job from its end, nor to show what is in it.
        log.exception("job %s: %s cannot be shown", artifact.job_id, artifact.name)
        return False
    return True


def _make(sessions: Sessions, settings: WorkerSettings, artifact: Artifact, job: Job) -> None:
    path = settings.runs / artifact.path
    with sessions.begin() as session:
        told = gather(session, job.id)
        adapter = artifacts.unpublished_adapter(session, job.id)
    try:
        # Two may make it at once, where a worker has just died: neither finds half of the other's.
        with replacing(path) as beside:
            report.write(artifact.kind, told, _base_name(settings, job), beside)
        if artifact.kind == "card" and adapter is not None:
            _put_into(settings.runs / adapter.path, path)
    except Exception:
        # Whatever it is, such as a full disk: no reason to keep a job from its end.
        log.exception("job %s: %s cannot be made", job.id, artifact.name)


def _base_name(settings: WorkerSettings, job: Job) -> str:
    """A hub id, or the name of the model's folder, as the trainer puts it into the adapter's configuration."""
    model = str(job.recipe["model"])
    try:
        folder = locate_model(model, settings.folders)
    except InputError:
        # It has gone since.
        folder = Path(model)
    return model if folder is None else folder.name


def _put_into(adapter: Path, card: Path) -> None:
    """So that the adapter says what it is wherever it is taken."""
    for name in (REPORT["card"], REPORT["curve"]):
        if (card.parent / name).exists():
            with replacing(adapter / name) as beside:
                shutil.copyfile(card.parent / name, beside)
