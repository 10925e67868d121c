"""Jobs keep the trace of the request that created them."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_traceparent"
down_revision = "20261130_disk"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("traceparent", sa.Text()))
