"""The schema that this program works with, and the one that the database has.

The revisions are listed here because the service does not import the migrations; a test compares the two.
"""

from sqlalchemy import Connection, text

REVISIONS = (
    "20261124_jobs",
    "20261125_precision",
    "20261126_scheduler",
    "20261127_api",
    "20261128_results",
    "20261129_audit",
    "20261129_vocabulary",
    "20261130_results_artifact",
    "20261130_plain_tar",
    "20261130_store_names",
)
"""The revisions of migrations/versions, oldest first."""
HEAD = REVISIONS[-1]


def revision_of(connection: Connection) -> str | None:
    """The database's revision; None for one that was never migrated."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    return connection.scalar(text("SELECT version_num FROM alembic_version"))


def mismatch(found: str | None) -> str | None:
    """What is wrong with a database of that revision, and what to do; None if this program works with it."""
    if found == HEAD:
        return None
    if found is None or found in REVISIONS:
        have = "has no schema" if found is None else f"has the schema {found}"
        return f"the database {have}, and this version needs {HEAD}: run `python -m migrations` of this version first"
    return (
        f"the database has the schema {found}, which is newer than this program's {HEAD}: this program is outdated; "
        "upgrade it to the version of the rest of the service"
    )
