"""Publishes artifacts: makes the files of a job's report, uploads each artifact and records its digests.

The rows say what is unpublished. When a worker dies, the next one of its name continues; if none comes, another does.
"""

import logging
import shutil
from contextlib import suppress
from pathlib import Path

from contract.failure import InputError
from contract.locate import locate_model, public_name
from runtime.atomic_files import replacing
from storage.backends import FolderStorage, Storage
from store import artifacts, kept_adapters
from store.artifacts import REPORT, Digests
from store.errors import JobNotFound
from store.jobs.job_report import gather
from store.models import Artifact, Job
from store.session import Sessions
from worker.publishing import report_files, upload
from worker.run_output import redact_log
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def publish_all(sessions: Sessions, settings: WorkerSettings, storage: Storage) -> None:
    """Publishes whatever this worker has to publish now. What is left after an error is published the next time.

    Raises StorageUnavailable, and OperationalError while the database is unavailable.
    """
    while True:
        with sessions.begin() as session:
            waiting = artifacts.list_unpublished(session, settings.worker)
        possible = [(artifact, job) for artifact, job in waiting if _can_publish(settings, artifact)]
        if not possible:
            return
        for artifact, job in sorted(possible, key=lambda each: _order(each[0])):
            with suppress(JobNotFound):  # deleted since it was listed
                _publish(sessions, settings, storage, artifact, job)


def _can_publish(settings: WorkerSettings, artifact: Artifact) -> bool:
    """Whether its run folder is still there. A report needs none, nor does what is in the storage already."""
    job_id, attempt = Path(artifact.path).parts[:2]
    return artifact.kind in REPORT or bool(artifact.files) or (settings.runs / job_id / attempt).is_dir()


def _order(artifact: Artifact) -> int:
    """The report comes first, the card last of it: the card shows the curve, and is copied into the adapter."""
    kinds = [*REPORT]
    return kinds.index(artifact.kind) if artifact.kind in kinds else len(kinds)


def _publish(sessions: Sessions, settings: WorkerSettings, storage: Storage, artifact: Artifact, job: Job) -> None:
    home = FolderStorage(settings.home)
    digests: Digests | None = None
    try:
        if artifact.kind in REPORT:
            _make(sessions, settings, artifact, job)
        if artifact.kind != "log" or _redact(home, artifact):
            digests = upload.put(storage, home, artifact)
    except FileNotFoundError as error:
        log.error("job %s: %s is missing: %s", job.id, artifact.name, error)
    with sessions.begin() as session:
        artifacts.mark_published(session, artifact, digests)
        kept_adapters.delete_older(session, artifact.job_id)


def _redact(home: FolderStorage, artifact: Artifact) -> bool:
    """Redacts a log. Returns whether it may be published. Raises FileNotFoundError."""
    path = home.local_path(artifacts.key(artifact))
    try:
        redact_log(path)
    except OSError:
        # A full disk, for example. It must neither keep the job from ending nor publish secrets.
        log.exception("job %s: %s cannot be redacted", artifact.job_id, artifact.name)
        return False
    return True


def _make(sessions: Sessions, settings: WorkerSettings, artifact: Artifact, job: Job) -> None:
    path = settings.runs / artifact.path
    with sessions.begin() as session:
        gathered = gather(session, job.id)
        adapter = artifacts.get_unpublished_adapter(session, job.id)
    try:
        # Two workers may make it at once, when one has just died. Neither may see half of the other's file.
        with replacing(path) as beside:
            report_files.write(artifact.kind, gathered, _base_name(settings, job), beside)
        if artifact.kind == "card" and adapter is not None and (folder := settings.runs / adapter.path).is_dir():
            _copy_into(folder, path)
    except Exception:
        # Whatever it is, for example a full disk, it must not keep the job from ending.
        log.exception("job %s: %s cannot be made", job.id, artifact.name)


def _base_name(settings: WorkerSettings, job: Job) -> str:
    """As contract.locate.public_name, also where the folder is gone by now."""
    model = str(job.recipe["model"])
    try:
        folder = locate_model(model, settings.folders)
    except InputError:
        folder = Path(model)
    return public_name(model, folder)


def _copy_into(adapter: Path, card: Path) -> None:
    """Copies the card and its curve into the adapter, so the adapter describes itself wherever it is used."""
    for name in (REPORT["card"], REPORT["curve"]):
        if (card.parent / name).exists():
            with replacing(adapter / name) as beside:
                shutil.copyfile(card.parent / name, beside)
