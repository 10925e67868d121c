"""The tests' database."""

import sqlalchemy as sa

from store.models import Base


def empty_database(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        # The audit refuses to be emptied, of everybody. A superuser, which the tests are, may put triggers aside.
        connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        connection.execute(sa.text(f"TRUNCATE {tables}"))
