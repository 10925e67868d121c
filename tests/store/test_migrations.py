import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from contract.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(engine: sa.Engine) -> Iterator[sa.Engine]:
    """A database of its own with the first revision's tables."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("CREATE DATABASE old"))
        other = sa.create_engine(engine.url.set(database="old"), poolclass=sa.NullPool)
        migrate(other, "20261124_jobs")
        yield other
        connection.execute(sa.text("DROP DATABASE old"))


def migrate(engine: sa.Engine, *revision: str) -> None:
    """To `revision` by Alembic's own command; without one, as the service does."""
    arguments = ["alembic", "upgrade", *revision] if revision else ["migrations"]
    environment = {**os.environ, "FINETUNED_DATABASE_URL": engine.url.render_as_string(hide_password=False)}
    subprocess.run([sys.executable, "-m", *arguments], env=environment, cwd=ROOT, check=True)


def test_a_job_of_the_first_release_is_kept_whole(old: sa.Engine) -> None:
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
