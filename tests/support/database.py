"""The tests' database."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from store.models import Base


def relax_durability(url: str) -> None:
    """A server that outlives no test need not wait for the disk. A killed server still loses nothing, only a killed
    machine does."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(sa.text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(sa.text("SELECT pg_reload_conf()"))
    engine.dispose()


def empty_database(engine: sa.Engine) -> None:
    """Measured with a row in it: 1 ms of the server's time; TRUNCATE takes 24 to 39 ms, and a copy of a template
    database 43 ms, with 15 to 80 ms more for dropping it."""
    tables = [table.name for table in Base.metadata.sorted_tables]
    # The lock waits for whoever still writes: their rows must go too.
    statements = [f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE"]
    # The audit's trigger refuses deletions. Superusers, such as the tests, may disable triggers.
    statements += ["SET LOCAL session_replication_role = replica", *(f"DELETE FROM {table}" for table in tables)]
    with engine.begin() as connection:
        connection.execute(sa.text("; ".join(statements)))


def dump(database: sa.Engine) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with database.connect() as connection:
        names = connection.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return {
            name: sorted(connection.scalars(sa.text(f'SELECT CAST(t AS text) FROM "{name}" t')).all()) for name in names
        }


@contextmanager
def new_database(engine: sa.Engine, name: str) -> Iterator[sa.Engine]:
    """An empty database on the same server, for as long as the block lasts."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        try:
            yield sa.create_engine(engine.url.set(database=name), poolclass=sa.NullPool)
        finally:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """In this process; the fixture `database_url` runs the service's own command."""
    config = Config()
    config.set_main_option("script_location", "migrations:")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNED_DATABASE_URL", engine.url.render_as_string(hide_password=False))
        command.upgrade(config, revision)
