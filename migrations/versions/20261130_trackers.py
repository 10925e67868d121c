"""Secrets of owners, and how far each tracker has followed each job."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_trackers"
down_revision = "20261130_loss_curve"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("owner", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
    )
    op.create_table(
        "trackings",
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("type", sa.Text(), primary_key=True),
        sa.Column("run", sa.Text()),
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("step", sa.Integer(), server_default="0", nullable=False),
        sa.Column("eval_step", sa.Integer(), server_default="-1", nullable=False),
        sa.Column("is_certain", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("claims", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("ix_trackings_due", "trackings", ["due_at"], postgresql_where=due)
