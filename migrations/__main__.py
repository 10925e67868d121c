"""`python -m migrations`: brings the database to the newest schema, or up to the revision that follows."""

import sys

from alembic import command
from alembic.config import Config


def main() -> None:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    command.upgrade(config, sys.argv[1] if sys.argv[1:] else "head")


if __name__ == "__main__":
    main()
