"""The rows of all tables, by COPY, which is the same in every version of PostgreSQL."""

from collections.abc import Iterable, Iterator

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from sqlalchemy import Connection, text

from store.backup.archive import ArchiveWriter, BackupError, Table
from store.models import Base

_PART = 16 << 20
"""Bytes of rows in one member: a tar wants to know the size of each beforehand."""


def write(writer: ArchiveWriter, connection: Connection, folder: str) -> list[Table]:
    """Writes every row as members below `folder`. A database of an older schema may have fewer tables."""
    there = set(connection.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")))
    tables = [table.name for table in Base.metadata.sorted_tables]
    return [_write(writer, connection, name, f"{folder}/{name}") for name in tables if name in there]


def _write(writer: ArchiveWriter, connection: Connection, name: str, folder: str) -> Table:
    columns = _columns(connection, name)
    parts: list[str] = []
    rows = 0
    with _cursor(connection) as cursor:
        with cursor.copy(SQL("COPY {} TO STDOUT").format(_target(name, columns))) as copy:
            for part in _parts(copy):
                parts.append(f"{folder}/{len(parts)}")
                writer.add(parts[-1], len(part), [part])
        rows = cursor.rowcount
    return Table(name=name, columns=columns, rows=rows, parts=parts)


def _parts(chunks: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes]:
    part = bytearray()
    for chunk in chunks:
        part += memoryview(chunk)
        if len(part) >= _PART:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


def read(connection: Connection, table: Table, parts: Iterator[bytes]) -> None:
    """Inserts the rows of a table, which is empty. Raises BackupError if they are not as many as were written."""
    with _cursor(connection) as cursor:
        with cursor.copy(SQL("COPY {} FROM STDIN").format(_target(table.name, table.columns))) as copy:
            for part in parts:
                copy.write(part)
        if cursor.rowcount != table.rows:
            raise BackupError(f"its table {table.name} has {cursor.rowcount} rows, and not {table.rows}")
    _continue_identities(connection, table.name)


def _continue_identities(connection: Connection, name: str) -> None:
    """Has the next row get the number after the last one's."""
    identities = text(
        "SELECT column_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = :name AND is_identity = 'YES'"
    )
    for column in connection.scalars(identities, {"name": name}).all():
        with _cursor(connection) as cursor:
            query = SQL("SELECT setval(pg_get_serial_sequence(%s, %s), max({}) + 1, false) FROM {} HAVING count(*) > 0")
            cursor.execute(query.format(Identifier(column), Identifier(name)), (name, column))


def first_with_rows(connection: Connection) -> str | None:
    """The name of a table of the database that is not empty."""
    names = text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename")
    for name in connection.scalars(names).all():
        with _cursor(connection) as cursor:
            cursor.execute(SQL("SELECT FROM {} LIMIT 1").format(Identifier(name)))
            if name != "alembic_version" and cursor.rowcount:
                return str(name)
    return None


def _columns(connection: Connection, name: str) -> list[str]:
    """Without generated columns, which the database computes again."""
    columns = text(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND table_name = :name AND is_generated = 'NEVER' ORDER BY ordinal_position"
    )
    return list(connection.scalars(columns, {"name": name}))


def _target(name: str, columns: list[str]) -> Composed:
    return SQL("{} ({})").format(Identifier(name), SQL(", ").join(map(Identifier, columns)))


def _cursor(connection: Connection) -> psycopg.Cursor[tuple[object, ...]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver.cursor()
