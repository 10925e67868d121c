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
