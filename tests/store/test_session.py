from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from pydantic import SecretStr

from runtime.settings import StoreSettings
from store.session import autocommit, make_engine, make_sessions, read_snapshot


def test_statement_and_a_dead_line_are_given_up(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    with engine.begin() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "30s"
        driver = connection.connection.driver_connection
        assert driver is not None
        given = driver.info.get_parameters()
    assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("10000", "10")
    engine.dispose()


def test_statement_timeout_is_local_to_its_transaction(
    database_url: str,
) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    with engine.begin():
        pass
    raw = engine.raw_connection()
    with closing(raw.cursor()) as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
    raw.close()
    engine.dispose()


def test_concurrent_connections_are_kept(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )

    def of_fifteen() -> set[int]:
        used = [engine.connect() for _ in range(15)]
        pids = {connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0 for connection in used}
        for connection in used:
            connection.close()
        return pids

    assert of_fifteen() == of_fifteen()
    engine.dispose()


def test_lost_pooled_connection_is_replaced(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    sessions = make_sessions(engine)

    def own_pid() -> int | None:
        with sessions.begin() as session:
            return session.scalar(sa.text("SELECT pg_backend_pid()"))

    pid = own_pid()
    other = sa.create_engine(database_url)
    with other.begin() as connection:
        connection.execute(sa.text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
    other.dispose()
    assert own_pid() not in (None, pid)
    engine.dispose()


def test_connection_with_a_message_is_kept(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    with engine.connect() as connection:
        pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
        connection.execute(sa.text("LISTEN anything"))
        connection.commit()
    other = sa.create_engine(database_url)
    with other.begin() as connection:
        connection.execute(sa.text("NOTIFY anything"))
    other.dispose()
    with engine.connect() as connection:  # something to read does not mean that it is closed
        assert connection.scalar(sa.text("SELECT pg_backend_pid()")) == pid
    engine.dispose()


def test_snapshot_sees_one_moment_and_writes_nothing(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    sessions = make_sessions(engine)
    setting = sa.text("SELECT current_setting(:name)")
    with read_snapshot(sessions) as session:
        given = [session.scalar(setting, {"name": f"transaction_{name}"}) for name in ("isolation", "read_only")]
        assert [*given, session.scalar(setting, {"name": "statement_timeout"})] == ["repeatable read", "on", "30s"]
    with autocommit(sessions) as connection:
        given = [connection.scalar(setting, {"name": f"transaction_{name}"}) for name in ("isolation", "read_only")]
        assert [*given, connection.scalar(setting, {"name": "statement_timeout"})] == ["read committed", "off", "0"]
    engine.dispose()


def test_single_read_begins_no_transaction(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    sessions = make_sessions(engine)
    reported = "SELECT pg_backend_pid(), now() = statement_timestamp(), current_setting('statement_timeout')"
    with autocommit(sessions) as connection:
        connection.execute(sa.text("SELECT 1"))
        pid, alone, limit = connection.execute(sa.text(reported)).one()
    assert (alone, limit) == (True, "0")
    with sessions.begin() as session:
        session.execute(sa.text("SELECT 1"))
        assert tuple(session.execute(sa.text(reported)).one()) == (pid, False, "30s")
    engine.dispose()


def test_snapshots_keep_their_prepared_statements(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    sessions = make_sessions(engine)
    prepared = sa.text("SELECT count(*) FROM pg_prepared_statements")
    for _ in range(7):  # psycopg prepares what it has sent five times
        with read_snapshot(sessions) as session:
            count = session.scalar(prepared)
    assert count == 1
    engine.dispose()


def test_transaction_begins_in_one_round_trip(database_url: str) -> None:
    engine = make_engine(
        StoreSettings(database_url=SecretStr(database_url), broker_url=SecretStr("redis://x"), home=Path("/tmp"))
    )
    sent: list[str] = []
    sa.event.listen(engine, "after_cursor_execute", lambda *given: sent.append(given[2]))
    number = sa.text("SELECT txid_current()")
    with engine.connect() as connection:
        with connection.begin():
            assert connection.scalar(number) == connection.scalar(number)
            driver = connection.connection.driver_connection
            assert driver is not None
            assert driver.autocommit  # so psycopg sends no BEGIN of its own
        assert len(sent) == 3, sent
        with connection.begin() as transaction:
            connection.exec_driver_sql("CREATE TABLE undone ()")
            transaction.rollback()
        assert not sa.inspect(connection).has_table("undone")
    engine.dispose()
