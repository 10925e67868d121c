"""The schema that the service knows, beside the migrations."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from store import schema


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
