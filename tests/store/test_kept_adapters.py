"""Which of a job's adapters are kept."""

from typing import Any

import sqlalchemy as sa

from contract.events import CheckpointEvent
from contract.recipe import DatasetSource
from store import artifacts, evaluations, pushes
from store.access.principal import Principal
from store.evaluations import NewEvaluation
from store.jobs import jobs
from store.models import Deletion, Export
from store.pushes import WantedPush
from store.session import Sessions
from tests.support.artifacts import publish_rows
from tests.support.jobs import make_recipe

ADMIN = Principal("default", admin=True, key_id=None, request_id="request")


def create(sessions: Sessions, **fields: Any) -> str:
    with sessions.begin() as session:
        return jobs.create(session, make_recipe(**fields)).id


def save(sessions: Sessions, job_id: str, steps: dict[int, float | None], final: bool = False) -> None:
    for step, loss in steps.items():
        event = CheckpointEvent(time=1, step=step, path=f"step-{step}", bytes=1, final=final, eval_loss=loss)
        with sessions.begin() as session:
            artifacts.add_checkpoint(session, job_id, 1, event)
        publish_rows(sessions)


def kept(sessions: Sessions, job_id: str) -> list[str]:
    with sessions.begin() as session:
        found = artifacts.list_published(session, job_id)
        return [each.name for each in sorted(found, key=lambda each: (each.step or 0, each.name))]


def test_older_adapters_are_deleted_once_newer_are_published(sessions: Sessions) -> None:
    job_id = create(sessions, checkpointing={"keep_adapters": 3})
    save(sessions, job_id, {2: None, 4: None, 6: None})
    with sessions.begin() as session:
        artifacts.add_checkpoint(session, job_id, 1, CheckpointEvent(time=1, step=8, path="step-8", bytes=1))
    assert kept(sessions, job_id) == ["checkpoint-2.tar", "checkpoint-4.tar", "checkpoint-6.tar"]
    publish_rows(sessions)
    assert kept(sessions, job_id) == ["checkpoint-4.tar", "checkpoint-6.tar", "checkpoint-8.tar"]
    save(sessions, job_id, {10: None}, final=True)
    assert kept(sessions, job_id) == ["checkpoint-6.tar", "checkpoint-8.tar", "adapter.tar"]
    with sessions.begin() as session:
        deleted = session.scalars(sa.select(Deletion.path).order_by(Deletion.path)).all()
    assert deleted == [f"{job_id}/attempt-1/step-2", f"{job_id}/attempt-1/step-4"]


def test_adapter_and_checkpoint_of_one_step_count_once(sessions: Sessions) -> None:
    job_id = create(sessions, checkpointing={"keep_adapters": 2})
    save(sessions, job_id, {2: None, 4: None})
    save(sessions, job_id, {4: None}, final=True)
    assert kept(sessions, job_id) == ["checkpoint-2.tar", "adapter.tar", "checkpoint-4.tar"]


def test_best_adapter_is_always_kept(sessions: Sessions) -> None:
    job_id = create(sessions, checkpointing={"keep_adapters": 1}, evaluation={"fraction": 0.5})
    save(sessions, job_id, {2: 2.0, 4: 1.0, 6: 1.5, 8: 1.4})
    assert kept(sessions, job_id) == ["checkpoint-4.tar", "checkpoint-8.tar"]
    save(sessions, job_id, {10: 0.9})
    assert kept(sessions, job_id) == ["checkpoint-10.tar"]


def test_all_adapters_are_kept_by_default(sessions: Sessions) -> None:
    job_id = create(sessions)
    save(sessions, job_id, dict.fromkeys(range(1, 9)))
    assert len(kept(sessions, job_id)) == 8


def test_adapters_in_use_are_not_deleted(sessions: Sessions) -> None:
    job_id = create(sessions, checkpointing={"keep_adapters": 1})
    save(sessions, job_id, {2: None})
    with sessions.begin() as session:
        recipe = make_recipe(adapter={"start_from": f"{job_id}/checkpoint-2"})
        jobs.create(session, recipe, start_from_job=job_id)
    save(sessions, job_id, {4: None})
    with sessions.begin() as session:
        named = {"job_id": job_id, "format": "merged", "source": "checkpoint-4.tar", "status": "queued", "attempt": 0}
        session.add(Export(id="export_1", **named))
    save(sessions, job_id, {5: None})
    with sessions.begin() as session:
        used = artifacts.get(session, job_id, "checkpoint-5.tar")
        new = NewEvaluation(used, DatasetSource(path="rows.jsonl", sha256="0" * 64), {}, 1)
        evaluations.create(session, job_id, new, None)
    save(sessions, job_id, {6: None})
    with sessions.begin() as session:
        wanted = WantedPush("checkpoint-6.tar", "org/name", revision=None, private=True, secret="hub")
        pushes.request(session, ADMIN, job_id, wanted)
    save(sessions, job_id, {7: None, 8: None})
    assert kept(sessions, job_id) == [f"checkpoint-{step}.tar" for step in (2, 4, 5, 6, 8)]
    with sessions.begin() as session:
        ended = sa.text("UPDATE jobs SET status = 'cancelled', finished_at = now() WHERE id <> :its")
        session.execute(ended, {"its": job_id})
        session.execute(sa.text("UPDATE exports SET status = 'succeeded'"))
        session.execute(sa.text("UPDATE evaluations SET status = 'succeeded', scores = '{}'"))
        session.execute(sa.text("UPDATE pushes SET status = 'failed', error = 'no', due_at = NULL"))
    save(sessions, job_id, {10: None})
    assert kept(sessions, job_id) == ["checkpoint-10.tar"]
