"""Connections to the database. A process makes one engine, after any fork."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from runtime.settings import StoreSettings

Sessions = sessionmaker[Session]

LONGEST_STATEMENT = "30s"
_RESTED = 1.0  # seconds

# A peer that has gone without a word is noticed in about ten seconds, not in a quarter of an hour. libpq passes these
# over on a Unix socket.
_LINE = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}


def make_engine(settings: StoreSettings) -> Engine:
    engine = create_engine(
        settings.database_url.get_secret_value(),
        # As many as by default, but all of them are kept: SQLAlchemy would close ten each time that they are returned,
        # and PostgreSQL starts a process for every new one.
        pool_size=15,
        max_overflow=0,
        connect_args={"application_name": "finetuned", **_LINE},
    )
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "checkout", lambda connection, record, _: _ping_after_a_rest(engine, connection, record))
    event.listen(engine, "begin", _limit_statements)
    return engine


def _note_use(_connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["used_at"] = time.monotonic()


def _ping_after_a_rest(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    """In place of pool_pre_ping, which asks each time: that is a fifth of all that a short read sends, and who has just
    answered is as sure to be there as who was just asked."""
    used_at = record.info.get("used_at")
    if used_at is not None and time.monotonic() - used_at > _RESTED:
        try:
            engine.dialect.do_ping(connection)
        except psycopg.OperationalError as error:
            raise InvalidatePoolError from error  # the others are of the same server


def _limit_statements(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    # In each transaction: PgBouncer refuses `options` with this in it at the connect, and what is set for a whole
    # session would stay on a pooled connection that a migration gets next.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONGEST_STATEMENT}'")


def make_sessions(engine: Engine) -> Sessions:
    """`with sessions.begin() as session:` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def one_read(sessions: Sessions) -> Iterator[Connection]:
    """For one short query, which sees one moment by itself. Without a transaction it is one round trip, not four, and a
    quarter less of what an answer costs; and it has no limit of time: nothing but a migration holds it up."""
    engine: Engine = sessions.kw["bind"]
    with engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


@contextmanager
def read_snapshot(sessions: Sessions) -> Iterator[Session]:
    """A REPEATABLE READ transaction, so that one response never mixes two moments of a job."""
    with sessions.begin() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session
