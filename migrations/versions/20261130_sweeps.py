"""Sweeps, and the jobs that belong to one."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_sweeps"
down_revision = "20261130_changes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweeps",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("fields", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_index("ix_sweeps_owner_newest", "sweeps", ["owner", sa.text("created_at DESC"), sa.text("id DESC")])
    op.add_column("jobs", sa.Column("sweep_id", sa.Text(), sa.ForeignKey("sweeps.id", ondelete="SET NULL")))
    op.add_column("jobs", sa.Column("sweep_values", sa.JSON()))
    where = sa.text("sweep_id IS NOT NULL")
    op.create_index("ix_jobs_sweep", "jobs", ["sweep_id", "created_at"], postgresql_where=where)
