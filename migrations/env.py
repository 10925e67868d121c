"""Alembic's entry: connects with FINETUNED_DATABASE_URL and runs the steps."""

from alembic import context
from sqlalchemy import create_engine, text

from migrations.settings import MigrationSettings
from runtime.settings import read_settings
from store.models import Base

_LOCK = 7302251123  # any constant: of two services that start at once, one waits for the other


def run() -> None:
    url = read_settings(MigrationSettings).database_url.get_secret_value()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()
    engine.dispose()


run()
