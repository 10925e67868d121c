"""`python -m migrations`: brings the database to the newest schema, or up to the revision that follows."""

import sys

from alembic import command
from alembic.config import Config

from migrations import worker_role
from migrations.settings import MigrationSettings
from runtime.settings import read_settings
from store.schema import HEAD


def main() -> None:
    settings = read_settings(MigrationSettings)
    config = Config()
    config.set_main_option("script_location", "migrations:")
    revision = sys.argv[1] if sys.argv[1:] else "head"
    command.upgrade(config, revision)
    # An earlier revision, at which a restore inserts its rows, lacks tables; the upgrade to HEAD follows.
    if revision in ("head", HEAD) and settings.worker_password is not None:
        worker_role.grant(settings.database_url.get_secret_value(), settings.worker_password.get_secret_value())


if __name__ == "__main__":
    main()
