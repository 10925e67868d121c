"""Jobs that have files to publish."""

from pathlib import Path
from typing import Any

from contract.events import CheckpointEvent, DoneEvent, EvaluationEvent
from contract.recipe import Recipe
from store import artifacts
from store.jobs import jobs, progress
from store.models import Artifact
from store.scheduling import workers
from store.session import Sessions
from tests.support.fake_trainer import metric, started
from tests.support.jobs import LEASE, begin, cpu
from worker.settings import WorkerSettings


def run_job(sessions: Sessions, settings: WorkerSettings, name: str = "ours", steps: int = 3, **fields: Any) -> str:
    """A job whose trainer has reported so many steps and saved an adapter; its attempt is not over."""
    recipe = {"model": "tiny", "dataset": {"path": "d.jsonl", "sha256": "ab" * 32}, "name": name} | fields
    with sessions.begin() as session:
        job_id = jobs.create(session, Recipe.model_validate(recipe)).id
        workers.register(session, "worker", "first", "localhost", cpu(1))
        begin(session)
        reported: list[Any] = [
            started(3, 0),
            *(metric(step, 3, weight=step, attempt=1, fp16=False) for step in range(1, steps + 1)),
        ]
        held_out = ((2, 1.25), (3, 1.5)) if steps else ()
        reported += [EvaluationEvent(time=1, step=step, eval_loss=each, supervised_tokens=1) for step, each in held_out]
        reported += [CheckpointEvent(time=1, step=3, path="adapter", bytes=2, final=True)]
        reported += [DoneEvent(time=1, step=3, completed=True, train_loss=2.0, eval_loss=None)]
        progress.record(session, job_id, 1, reported, LEASE)
    run = settings.runs / artifacts.run_path(job_id, 1)
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_config.json").write_text("{}")
    (run / "trainer.log").write_text("line\n")
    return job_id


def end(sessions: Sessions, job_id: str) -> None:
    with sessions.begin() as session:
        artifacts.add_end(session, job_id, 1, Path("trainer.log"), 5, report=True)


def published(sessions: Sessions, job_id: str) -> dict[str, Artifact]:
    with sessions.begin() as session:
        return {artifact.name: artifact for artifact in artifacts.list_published(session, job_id)}
