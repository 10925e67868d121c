"""The schema that the service knows, beside the migrations."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from store import schema
from tests.support.database import new_database
from tests.support.servers import free_port
from tests.support.settings import SECRET_KEY


def test_service_knows_every_revision() -> None:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    history = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert list(schema.REVISIONS) == history[::-1]


def test_mismatch_says_which_side_is_older() -> None:
    assert schema.mismatch(schema.HEAD) is None
    assert "run `python -m migrations`" in str(schema.mismatch(None))
    assert "run `python -m migrations`" in str(schema.mismatch(schema.REVISIONS[0]))
    assert "this program is outdated" in str(schema.mismatch("20990101_later"))


@pytest.fixture
def old(engine: sa.Engine) -> Iterator[sa.Engine]:
    """A database without a schema."""
    with new_database(engine, "without_schema") as other:
        yield other


def set_revision(engine: sa.Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS alembic_version (version_num text)"))
        connection.execute(sa.text("DELETE FROM alembic_version"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})


@pytest.mark.parametrize(
    ("part", "revision", "words"),
    [
        ("api", "20990101_later", "newer than this program's"),
        ("worker", "20990101_later", "newer than this program's"),
        ("worker", schema.REVISIONS[0], "run `python -m migrations`"),
    ],
)
def test_program_refuses_a_database_of_another_version(
    old: sa.Engine, broker_url: str, tmp_path: Path, part: str, revision: str, words: str
) -> None:
    set_revision(old, revision)
    environment = {
        **os.environ,
        "FINETUNED_DATABASE_URL": old.url.render_as_string(hide_password=False),
        "FINETUNED_BROKER_URL": broker_url,
        "FINETUNED_HOME": str(tmp_path),
        "FINETUNED_SECRET_KEY": SECRET_KEY.get_secret_value(),
        "FINETUNED_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", part]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr
    assert revision in done.stderr
    assert "Traceback" not in done.stderr


def test_running_migration_is_waited_for(old: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    assert "has no schema" in str(schema.refusal(old))
    migration = threading.Timer(0.3, set_revision, [old, schema.HEAD])
    migration.start()
    assert schema.refusal(old, wait_seconds=30) is None
    migration.join()
    assert "waiting for it for 30 s" in caplog.text
