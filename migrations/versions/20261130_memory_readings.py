"""Workers keep a day of readings of memory."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_memory_readings"
down_revision = "20261130_sweeps"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "memory_readings",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("device", sa.Integer(), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("jobs", sa.ARRAY(sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("worker", "at", "device", name=op.f("pk_memory_readings")),
    )
