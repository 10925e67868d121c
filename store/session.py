"""Connections to the database. A process makes one engine, after any fork."""

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session, sessionmaker

from store.settings import StoreSettings

Sessions = sessionmaker[Session]

LONGEST_STATEMENT = "30s"

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
        pool_pre_ping=True,
        # As many as by default, but all of them are kept: SQLAlchemy would close ten each time that they are returned,
        # and PostgreSQL starts a process for every new one.
        pool_size=15,
        max_overflow=0,
        connect_args={"application_name": "finetuned", **_LINE},
    )
    event.listen(engine, "begin", _limit_statements)
    return engine


def _limit_statements(connection: Connection) -> None:
    # In each transaction: PgBouncer refuses `options` with this in it at the connect, and what is set for a whole
    # session would stay on a pooled connection that a migration gets next.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{LONGEST_STATEMENT}'")


def make_sessions(engine: Engine) -> Sessions:
    """`with sessions.begin() as session:` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)
