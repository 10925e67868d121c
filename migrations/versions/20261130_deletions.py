"""Jobs can be deleted: a table of the bytes that are to be deleted then, and the job that a job starts from."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_deletions"
down_revision = "20261130_store_names"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = sa.text("now()")
    op.create_table(
        "deletions",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.CheckConstraint("path <> ''", name=op.f("ck_deletions_path")),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_deletions")),
    )
    op.create_index("ix_deletions_due", "deletions", ["due_at"])
    op.add_column("jobs", sa.Column("start_from_job", sa.Text()))
    op.execute(
        """
        UPDATE jobs SET start_from_job = earlier.id FROM jobs AS earlier
        WHERE earlier.id = split_part(jobs.recipe #>> '{adapter,start_from}', '/', 1)
        """
    )
    op.create_foreign_key(
        op.f("fk_jobs_start_from_job"), "jobs", "jobs", ["start_from_job"], ["id"], ondelete="SET NULL"
    )
    started = sa.text("start_from_job IS NOT NULL")
    op.create_index("ix_jobs_start_from_job", "jobs", ["start_from_job"], postgresql_where=started)
