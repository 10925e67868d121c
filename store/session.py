"""Connections to the database. Each process makes one engine, after any fork."""

import select
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError
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
        connect_args={"application_name": "finetuned", **_KEEPALIVE},
        # psycopg is not to send its own BEGIN; `_begin` does. COMMIT and ROLLBACK it sends all the same.
        isolation_level="AUTOCOMMIT",
    )
    event.listen(engine, "checkout", _refuse_closed)
    event.listen(engine, "begin", _begin)
    return engine


def _refuse_closed(connection: psycopg.Connection, *_: object) -> None:
    """Makes the pool replace a connection that the server closed while it was idle. SQLAlchemy's pool_pre_ping does so
    too, but takes a round trip for every request; here only a connection with something to read is tried."""
    if not connection.closed and not _has_something_to_read(connection):
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.rollback()
    except psycopg.OperationalError as error:
        raise InvalidatePoolError from error


def _has_something_to_read(connection: psycopg.Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_LIMIT = f"SET LOCAL statement_timeout = '{LONGEST_STATEMENT}'"
# In each transaction: PgBouncer refuses it among the options of a connection, and a setting of the whole session would
# stay on a pooled connection that a migration gets next.


def _begin(connection: Connection) -> None:
    """Begins a transaction with its limit in one round trip, not two. `autocommit` has none."""
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(f"BEGIN; {_LIMIT}")


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
    with autocommit(sessions) as connection:
        connection.exec_driver_sql(_SNAPSHOT)
        with Session(connection) as session:
            yield session
        connection.commit()  # psycopg forgets at each rollback which statements PostgreSQL has prepared


# PostgreSQL takes a thinned curve for a large query; to compile it would take longer than to run it.
_SNAPSHOT = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_LIMIT}; SET LOCAL jit = off"
