"""The results of jobs among the files: their size, and when they were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "20261128_results"
down_revision = "20261127_api"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("results_bytes", sa.BigInteger()))
    op.add_column("jobs", sa.Column("results_deleted_at", sa.DateTime(timezone=True)))
