"""Jobs know the bytes of their artifacts and run folders, and when these were cleaned."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_retention"
down_revision = "20261130_deletions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("run_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("artifact_bytes", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("measured_attempt", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("cleaned_at", sa.DateTime(timezone=True)))
    unmeasured = sa.text("measured_attempt < attempt")
    op.create_index("ix_jobs_unmeasured", "jobs", ["id"], postgresql_where=unmeasured)
