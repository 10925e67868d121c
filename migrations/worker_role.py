"""The workers' role in the database: it can run jobs, and can neither read nor make a key."""

from sqlalchemy import Connection, create_engine, text

ROLE = "finetuned_worker"

_GRANTS = {
    "SELECT": (
        *("alembic_version", "quotas", "pushes (job_id, artifact, due_at)", "webhooks (id, owner, events, enabled)"),
    ),
    "SELECT, INSERT": ("deliveries", "evaluated_rows", "events"),
    "SELECT, INSERT, DELETE": ("memory_readings",),
    "SELECT, UPDATE": ("jobs",),
    "SELECT, UPDATE, DELETE": ("datasets", "evaluations", "exports"),
    "SELECT, INSERT, UPDATE, DELETE": (
        *("artifacts", "blobs", "deletions", "devices", "inference_servers", "leases", "metrics", "workers"),
    ),
}


def grant(url: str, password: str) -> None:
    """Makes the role if it is missing, with this password and the rights to today's tables, and no others."""
    engine = create_engine(url)
    with engine.begin() as connection:
        if connection.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": ROLE}) is None:
            connection.execute(text(f"CREATE ROLE {ROLE} LOGIN"))
        _set_password(connection, password)
        connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {ROLE}"))
        connection.execute(text(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {ROLE}"))
        for rights, tables in _GRANTS.items():
            for table in tables:
                name, _, columns = table.partition(" ")
                connection.execute(text(f"GRANT {rights} {columns} ON {name} TO {ROLE}"))
    engine.dispose()


def _set_password(connection: Connection, password: str) -> None:
    # Hashed here, so that the statement may be in the server's log.
    driver = connection.connection.driver_connection
    assert driver is not None
    hashed = driver.pgconn.encrypt_password(password.encode(), ROLE.encode(), b"scram-sha-256").decode()
    connection.exec_driver_sql(f"ALTER ROLE {ROLE} PASSWORD '{hashed}'")
