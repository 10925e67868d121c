"""Why a cluster has not started a job that was handed to it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "20261130_cluster_wait"
down_revision = "20261130_pushes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cluster_wait", JSONB()))
