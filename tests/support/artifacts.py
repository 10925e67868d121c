"""Publishes what jobs have saved, as a worker's publishing process does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from storage.backends import FolderStorage, Storage
from store import artifacts, kept_adapters
from store.artifacts import REPORT, REPORT_FOLDER, Digests
from store.models import Artifact
from store.session import Sessions
from worker.publishing import upload
from worker.publishing.publisher import publish_all
from worker.settings import WorkerSettings


def publish(sessions: Sessions, home: Path, storage: Storage | None = None) -> None:
    """All that there is, whosever it is."""
    folder = FolderStorage(home)
    for artifact in _waiting(sessions):
        digests = upload.put(storage or folder, folder, artifact)
        with sessions.begin() as session:
            artifacts.mark_published(session, artifact, digests)


def publish_rows(sessions: Sessions) -> None:
    """Where a test has no files, but their rows alone."""
    for artifact in _waiting(sessions):
        with sessions.begin() as session:
            artifacts.mark_published(session, artifact, Digests([], artifact.bytes, "0" * 64))
            kept_adapters.delete_older(session, artifact.job_id)


def write_adapter_config(home: Path, job_id: str, folder: str) -> None:
    """Of an adapter that the first attempt has saved there."""
    adapter = home / "runs" / artifacts.run_path(job_id, 1) / folder
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")


def _waiting(sessions: Sessions) -> list[Artifact]:
    with sessions.begin() as session:
        return list(session.scalars(sa.select(Artifact).where(Artifact.published_at.is_(None))))


@contextmanager
def publishing_on(sessions: Sessions, settings: WorkerSettings) -> Iterator[None]:
    """As the publishing process of a worker with these settings."""
    stop = threading.Event()

    def keep() -> None:
        while not stop.wait(0.05):
            publish_all(sessions, settings, FolderStorage(settings.home))

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def results(job_id: str) -> Artifact:
    """The results of a job's first attempt, not published yet."""
    path = artifacts.run_path(job_id, 1) / REPORT_FOLDER / REPORT["results"]
    return Artifact(job_id=job_id, name=REPORT["results"], kind="results", path=str(path), bytes=0)
