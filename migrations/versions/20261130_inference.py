"""Inference servers, and whether a worker runs them."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_inference"
down_revision = "20261130_shard_size"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("inference", sa.Text(), server_default="preemptible", nullable=False))
    op.create_check_constraint(op.f("ck_workers_inference"), "workers", "inference IN ('kept', 'off', 'preemptible')")
    op.create_table(
        "inference_servers",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("number", sa.Integer()),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("address", sa.Text()),
        sa.Column("failure", sa.JSON(none_as_null=True)),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint(
            "state IN ('wanted', 'starting', 'ready', 'stopping', 'failed')", name=op.f("ck_inference_servers_state")
        ),
        sa.CheckConstraint(
            "(state IN ('wanted', 'failed')) = (worker IS NULL)", name=op.f("ck_inference_servers_worker")
        ),
        sa.CheckConstraint("(state = 'ready') <= (address IS NOT NULL)", name=op.f("ck_inference_servers_address")),
        sa.ForeignKeyConstraint(["worker", "number"], ["devices.worker", "devices.number"], ondelete="CASCADE"),
    )
    one = sa.text("state <> 'stopping'")
    op.create_index("uq_inference_servers_base", "inference_servers", ["base"], unique=True, postgresql_where=one)
