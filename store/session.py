"""Connections to the database. Each process makes one engine, after any fork."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from runtime.settings import StoreSettings

Sessions = sessionmaker[Session]

LONGEST_STATEMENT = "30s"

# A peer that vanishes silently is noticed within about ten seconds, not a quarter of an hour. libpq ignores these on a
# Unix socket.
_KEEPALIVE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}


def make_engine(settings: StoreSettings) -> Engine:
    engine = create_engine(
        settings.database_url.get_secret_value(),
        # The default number, all of them kept: SQLAlchemy would close ten of them whenever they are returned, and
        # PostgreSQL starts a process for every new one.
        pool_size=15,
        max_overflow=0,
        pool_pre_ping=True,
        connect_args={"application_name": "finetuned", **_KEEPALIVE},
    )
    event.listen(engine, "begin", _limit_statements)
    return engine


def _limit_statements(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    # In each transaction: PgBouncer refuses it among the options of a connection, and a setting of the whole session
    # would stay on a pooled connection that a migration gets next.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONGEST_STATEMENT}'")


def make_sessions(engine: Engine) -> Sessions:
    """Makes sessions; `with sessions.begin() as session:` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def autocommit(sessions: Sessions) -> Iterator[Connection]:
    """A connection for short statements, each of which is a transaction by itself and sees one moment. A single one
    takes one round trip instead of four. They have no statement timeout: nothing but a migration holds them up."""
    engine: Engine = sessions.kw["bind"]
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def read_snapshot(sessions: Sessions) -> Iterator[Session]:
    """A REPEATABLE READ transaction, so that one response never mixes two moments of a job."""
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session
