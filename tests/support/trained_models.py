"""Fine-tuned models of a running service, without training: jobs that have ended, with an adapter each."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from contract.events import CheckpointEvent
from store import artifacts
from store.jobs import jobs
from store.models import Artifact, Job
from store.session import Sessions
from tests.support.jobs import make_recipe
from tests.support.waiting import until


def add_trained_model(
    sessions: Sessions, home: Path, owner: str, model: str, save_adapter: Callable[[Path], object]
) -> str:
    """Its name, once a worker has published its adapter, which `save_adapter` writes to a folder."""
    with sessions.begin() as session:
        job = jobs.create(session, make_recipe(model=model), owner)
        session.flush()
        save_adapter(home / "runs" / artifacts.run_path(job.id, 1) / "adapter")
        ended = {"status": "succeeded", "attempt": 1, "finished_at": sa.func.now()}
        session.execute(sa.update(Job).where(Job.id == job.id).values(ended))
        event = CheckpointEvent(time=0, step=3, path="adapter", bytes=1, final=True)
        artifacts.add_checkpoint(session, job.id, 1, event)
        job_id = job.id

    def is_published() -> bool:
        with sessions.begin() as session:
            found = session.get(Artifact, (job_id, artifacts.ADAPTER))
            return found is not None and found.published_at is not None

    until(is_published)
    return f"ft:{model}:{owner}::{job_id.removeprefix('job_')}"
