"""Exports of merged models have a largest size of their files."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_shard_size"
down_revision = "20261130_scores"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("exports", sa.Column("shard_size", sa.Text()))
