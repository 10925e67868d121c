"""`python -m migrations`: brings the database to the newest schema."""

from alembic import command
from alembic.config import Config


def main() -> None:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    command.upgrade(config, "head")


if __name__ == "__main__":
    main()
