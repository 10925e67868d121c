import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from contract.exit_report import ExitReport
from contract.failure import Failure, FailureCode
from contract.machine import ExternalProcess
from contract.recipe import Batch, Recipe
from contract.status import RequestedAction
from store.models import Delivery, Device, Event, Export, Job
from tests.support.database import migrate, new_database

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(engine: sa.Engine) -> Iterator[sa.Engine]:
    """A database of its own with the first revision's tables."""
    with new_database(engine, "old") as other:
        migrate(other, "20261124_jobs")
        yield other


def test_job_of_the_first_release_is_kept_whole(old: sa.Engine) -> None:
    with old.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO jobs (id, recipe, status, attempt, losses, event_count) "
                "VALUES ('job_1', :recipe, 'queued', 1, 0, 1)"
            ),
            {"recipe": '{"model": "m", "dataset": {"path": "d"}, "parallel": {"processes": 2, "nodes": 1}}'},
        )
        connection.execute(sa.text("INSERT INTO metrics VALUES ('job_1', 1, 0, 0, 2.5, 0, 0.5, 1, 1, 1, 1, 1, 0)"))
        connection.execute(sa.text("INSERT INTO artifacts VALUES ('job_1', 'a', 'adapter', 1, 'p', 1)"))
    migrate(old)
    with old.connect() as connection:
        metric = "SELECT loss, grad_norm, loss_scale, overflow, skipped_steps FROM metrics"
        assert connection.execute(sa.text(metric)).one() == (2.5, 0.5, None, False, 0)
        assert connection.execute(sa.text("SELECT name, eval_loss FROM artifacts")).one() == ("a", None)
        row = connection.execute(sa.text("SELECT id, command, owner, retries, recipe FROM jobs")).one()
    assert tuple(row[:-1]) == ("job_1", None, "default", 0)
    recipe = Recipe.model_validate(row.recipe)
    assert (recipe.resources.gpus, recipe.resources.nodes) == (2, 1)


RECIPE = {
    "model": "m",
    "dataset": {"path": "d"},
    "batch": {"accumulation": 2, "micro_batch": 4, "effective": None, "max_length": 64},
    "resources": {"gpus": 2, "nodes": 1, "share": True},
    "evaluation": {"share": 0.25},
    "checkpointing": {"state_minutes": 5.0, "keep_states": 3},
}
FAULT = {"exception": "builtins.KeyError", "place": "x.py:1 f", "step": 2}
FAILURE = {"reason": "out_of_memory", "message": "too big", "param": "batch", "fault": FAULT}
REPORT = {"asked": 1.0, "ended": 3.0, "seconds": 2.0, "processes": [], "memory_before": {}, "memory_after": {}}
JOB = """
    INSERT INTO jobs (id, owner, recipe, priority, status, wish, attempt, retries, batch, failure, receipt,
                      lease_expires_at, finished_at, event_count)
    VALUES (:id, 'anna', :recipe, 0, :status, :wish, 1, 0, :batch, :failure, :receipt,
            CASE WHEN :status = 'running' THEN now() END, CASE WHEN :status = 'failed' THEN now() END, 3)
"""
EVENTS = [
    ("started", {"micro_batch": 4, "effective_batch": 16, "engine": "ddp"}),
    ("retry", {**FAILURE, "micro_batch": 2, "effective": 16}),
    ("retry", {"reason": "worker_lost", "message": "lost", "retries": 1, "most": 3, "wait_seconds": 0.0}),
    ("status", {"status": "failed", "attempt": 1, "failure": FAILURE}),
    ("status", {"status": "running", "attempt": 1}),
]


def insert(connection: sa.Connection, statement: str, **values: object) -> None:
    texts = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in values.items()}
    connection.execute(sa.text(statement), texts)


@pytest.fixture
def before_the_vocabulary(old: sa.Engine) -> sa.Engine:
    """A database with a row of each kind that has old words."""
    migrate(old, "20261129_audit")
    with old.begin() as connection:
        for wish in ("cancel", "kill", "pause", "step_aside"):
            nothing: dict[str, Any] = dict.fromkeys(("batch", "failure", "receipt"))
            insert(connection, JOB, id=wish, recipe=RECIPE, status="running", wish=wish, **nothing)
        ended = {"batch": RECIPE["batch"], "failure": FAILURE, "receipt": REPORT}
        insert(connection, JOB, id="failed", recipe=RECIPE, status="failed", wish=None, **ended)
        for seq, (kind, data) in enumerate(EVENTS, start=1):
            event = "INSERT INTO events (job_id, seq, time, type, data) VALUES ('failed', :seq, 0, :type, :data)"
            insert(connection, event, seq=seq, type=kind, data=data)
        export = (
            "INSERT INTO exports (id, job_id, format, source, status, attempt, failure, finished_at) "
            "VALUES ('e', 'failed', 'merged', 'adapter.tar.gz', 'failed', 1, :failure, now())"
        )
        insert(connection, export, failure=FAILURE)
        webhook = "INSERT INTO webhooks VALUES ('w', 'anna', 'https://example.com', 's', '[]', true, now())"
        connection.execute(sa.text(webhook))
        delivery = (
            "INSERT INTO deliveries (id, webhook_id, type, payload, status, tries, due_at, answer_status) "
            "VALUES ('msg_1', 'w', 'ping', '{\"data\": {}}', 'failed', 7, now(), 503)"
        )
        connection.execute(sa.text(delivery.replace(":", "\\:")))
        worker = (
            "INSERT INTO workers (name, incarnation, address, machine, draining, seen_at) "
            "VALUES ('w', 'i', 'h', '{}', false, now())"
        )
        connection.execute(sa.text(worker))
        holders = json.dumps([{"pid": 7, "name": "blender", "memory_bytes": None}])
        insert(connection, "INSERT INTO devices VALUES ('w', 0, :holders)", holders=holders)
    return old


def test_old_words_in_every_row_become_todays(before_the_vocabulary: sa.Engine) -> None:
    migrate(before_the_vocabulary)
    with Session(before_the_vocabulary) as session:
        actions = dict(session.execute(sa.select(Job.id, Job.requested_action)).all())
        assert actions == {
            "cancel": RequestedAction.CANCEL,
            "kill": RequestedAction.FORCE_CANCEL,
            "pause": RequestedAction.PAUSE,
            "step_aside": RequestedAction.PREEMPT,
            "failed": None,
        }
        job = session.get_one(Job, "failed")
        recipe = Recipe.model_validate(job.recipe)
        assert recipe.batch == Batch(micro_batch_size=4, gradient_accumulation_steps=2, max_length=64)
        assert list(job.recipe["batch"])[:2] == ["gradient_accumulation_steps", "micro_batch_size"]  # as written
        assert (recipe.resources.allow_sharing, recipe.evaluation.fraction) == (True, 0.25)
        checkpointing = recipe.checkpointing
        assert (checkpointing.training_checkpoint_minutes, checkpointing.keep_training_checkpoints) == (5, 3)
        assert json.dumps(job.recipe["resources"]) in job.shape
        assert Batch.model_validate(job.batch) == recipe.batch
        assert ExitReport.model_validate(job.exit_report).stop_requested == 1
        for failure in (job.failure, session.get_one(Export, "e").failure):
            read = Failure.model_validate(failure)
            assert (read.code, read.fault and read.fault.location) == (FailureCode.OUT_OF_MEMORY, "x.py:1 f")
        delivery = session.get_one(Delivery, "msg_1")
        assert (delivery.attempts, delivery.response_status) == (7, 503)
        (process,) = session.get_one(Device, ("w", 0)).external_processes or []
        assert ExternalProcess.model_validate(process).name == "blender"


def test_old_words_in_events_become_todays(before_the_vocabulary: sa.Engine) -> None:
    migrate(before_the_vocabulary)
    with Session(before_the_vocabulary) as session:
        started, smaller, again, failed, running = session.scalars(sa.select(Event.data).order_by(Event.seq))
    assert started == {"micro_batch_size": 4, "effective_batch_size": 16, "engine": "ddp"}
    fault = {**FAULT, "location": FAULT["place"]}
    del fault["place"]
    assert (smaller["micro_batch_size"], smaller["effective_batch_size"], smaller["fault"]) == (2, 16, fault)
    assert (again["code"], again["retries"], again["max_retries"]) == ("worker_lost", 1, 3)
    assert Failure.model_validate(failed["failure"]).code is FailureCode.OUT_OF_MEMORY
    assert running == {"status": "running", "attempt": 1}


_JOB = """
    INSERT INTO jobs (id, owner, recipe, status, attempt, retries, priority, event_count, finished_at,
                      results_deleted_at)
    VALUES (:id, 'anna', '{}', :status, 2, 0, 0, 1, now(), CAST(:deleted AS timestamptz))"""
_METRIC = """
    INSERT INTO metrics (job_id, step, time, epoch, loss, learning_rate, overflow, skipped_steps, tokens,
                         supervised_tokens, tokens_per_second, memory_bytes, progress, eta_seconds)
    VALUES (:id, 1, 0, 1, 1, 1, false, 0, 1, 1, 1, 1, 1, 0)"""


def test_results_of_earlier_jobs_await_publishing(old: sa.Engine) -> None:
    migrate(old, "20261129_audit")
    with old.begin() as connection:
        rows = [("job_1", "succeeded", None), ("job_2", "succeeded", "now"), ("job_3", "cancelled", None)]
        for job_id, status, deleted in rows:
            connection.execute(sa.text(_JOB), {"id": job_id, "status": status, "deleted": deleted})
            connection.execute(sa.text(_METRIC), {"id": job_id})
    migrate(old)
    with old.connect() as connection:
        found = connection.execute(sa.text("SELECT job_id, name, path, sha256, published_at FROM artifacts")).all()
    assert [tuple(row) for row in found] == [("job_1", "results.csv", "job_1/attempt-2/report/results.csv", None, None)]


def test_earlier_archives_await_digesting_as_tar(old: sa.Engine) -> None:
    migrate(old, "20261129_audit")
    with old.begin() as connection:
        connection.execute(sa.text(_JOB), {"id": "job_1", "status": "succeeded", "deleted": "now"})
        connection.execute(
            sa.text(
                "INSERT INTO artifacts (job_id, name, kind, path, bytes, files, sha256, crc32, published_at) VALUES "
                "('job_1', 'adapter.tar.gz', 'adapter', 'p', 9, '[1]', 'ab', 7, now()), "
                "('job_1', 'checkpoint-1.tar.gz', 'checkpoint', 'gone', 9, NULL, NULL, NULL, now())"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO exports (id, job_id, format, source, status, attempt, artifact, finished_at) "
                "VALUES ('exp_1', 'job_1', 'merged', 'adapter.tar.gz', 'succeeded', 1, 'merged.tar.gz', now())"
            )
        )
    migrate(old)
    with old.connect() as connection:
        columns = "SELECT name, files, sha256, published_at IS NULL FROM artifacts ORDER BY name"
        assert [tuple(row) for row in connection.execute(sa.text(columns))] == [
            ("adapter.tar", [1], None, True),
            ("checkpoint-1.tar", None, None, False),
        ]
        assert connection.execute(sa.text("SELECT source, artifact FROM exports")).one() == (
            "adapter.tar",
            "merged.tar",
        )


def test_earlier_jobs_know_the_one_that_they_start_from(old: sa.Engine) -> None:
    migrate(old, "20261130_store_names")
    ids = {"job_1": None, "job_2": "job_1", "job_3": "job_1/checkpoint-5", "job_4": "job_0"}
    with old.begin() as connection:
        for job_id, start_from in ids.items():
            row = (
                "INSERT INTO jobs (id, owner, recipe, priority, status, attempt, retries, event_count) "
                "VALUES (:id, 'anna', :recipe, 0, 'queued', 0, 0, 1)"
            )
            insert(connection, row, id=job_id, recipe={"adapter": {"start_from": start_from}})
    migrate(old)
    with old.connect() as connection:
        found = connection.execute(sa.text("SELECT start_from_job FROM jobs ORDER BY id")).scalars().all()
    assert found == [None, "job_1", "job_1", None]
