"""Connections to the database. A process makes one engine, after any fork."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from store.settings import StoreSettings

Sessions = sessionmaker[Session]


def make_engine(settings: StoreSettings) -> Engine:
    return create_engine(
        settings.database_url.get_secret_value(),
        pool_pre_ping=True,
        connect_args={"connect_timeout": 5, "application_name": "finetuned"},
    )


def make_sessions(engine: Engine) -> Sessions:
    """`with sessions.begin() as session:` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)
