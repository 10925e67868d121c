"""Jobs keep the transaction that last changed them, so that what is new is found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_changes"
down_revision = "20261130_sessions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    transaction = sa.text("pg_current_xact_id()::text::bigint")
    op.add_column("jobs", sa.Column("changed", sa.BigInteger(), server_default=transaction, nullable=False))
    op.create_index("ix_jobs_changed", "jobs", ["changed"])
    op.execute(
        """
        CREATE FUNCTION jobs_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.changed := pg_current_xact_id()::text::bigint;
            RETURN NEW;
        END $$
        """
    )
    # Not of what retention writes. A worker renews its lease with every batch of metrics and evaluations.
    op.execute(
        """
        CREATE TRIGGER jobs_note_change BEFORE UPDATE OF name, status, requested_action, priority, attempt, retries,
            started_at, finished_at, lease_expires_at, total_steps, failure, tags ON jobs
        FOR EACH ROW EXECUTE FUNCTION jobs_note_change()
        """
    )
    op.create_table(
        "deleted_jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("changed", sa.BigInteger(), server_default=transaction, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deleted_jobs")),
    )
    op.create_index("ix_deleted_jobs_changed", "deleted_jobs", ["changed"])
