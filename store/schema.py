"""The schema that this program works with, and the one that the database has.

The revisions are listed here because the service does not import the migrations; a test compares the two.
"""

import logging
import time

from sqlalchemy import Connection, Engine, text

log = logging.getLogger(__name__)

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
    "20261130_deletions",
    "20261130_retention",
    "20261130_disk",
    "20261130_traceparent",
    "20261130_sessions",
    "20261130_changes",
    "20261130_sweeps",
    "20261130_memory_readings",
    "20261130_audit_filters",
    "20261130_key_expiry",
    "20261130_loss_curve",
    "20261130_trackers",
    "20261130_router_loss",
    "20261130_scores",
    "20261130_shard_size",
    "20261130_inference",
    "20261130_failed_device",
    "20261130_ratings",
    "20261130_evaluations",
    "20261130_pushes",
    "20261130_cluster_wait",
    "20261201_inference_shares",
)
"""The revisions of migrations/versions, oldest first."""
HEAD = REVISIONS[-1]
_POLL_SECONDS = 0.2


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


def refusal(engine: Engine, wait_seconds: float = 0) -> str | None:
    """Why this program must not start on the database; None if it may. Waits so long for migrations that may be
    running. Raises OperationalError while the database is unavailable."""
    deadline = time.monotonic() + wait_seconds
    announced = False
    while True:
        with engine.begin() as connection:
            found = revision_of(connection)
        problem = mismatch(found)
        is_older = found is None or found in REVISIONS
        if problem is None or not is_older or time.monotonic() >= deadline:
            return problem
        if not announced:
            log.warning("%s; waiting for it for %g s", problem, wait_seconds)
            announced = True
        time.sleep(_POLL_SECONDS)
