"""Evaluations of adapters beside their base models."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_evaluations"
down_revision = "20261130_ratings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    json = sa.JSON(none_as_null=True)
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer()),
        sa.Column("dataset", json, nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("settings", json, nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dropped", sa.Integer()),
        sa.Column("scores", json),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("waits", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("breaks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("failure", json),
        sa.Column("artifact", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("turn_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'succeeded', 'failed')", name=op.f("ck_evaluations_status")
        ),
        sa.CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_evaluations_lease")),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name=op.f("ck_evaluations_failure")),
        sa.CheckConstraint("(status = 'succeeded') = (scores IS NOT NULL)", name=op.f("ck_evaluations_scores")),
    )
    op.create_index("ix_evaluations_job", "evaluations", ["job_id"])
    op.create_index("ix_evaluations_newest", "evaluations", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_evaluations_dataset", "evaluations", ["sha256"])
    is_open = sa.text("status IN ('queued', 'running')")
    op.create_index("ix_evaluations_open", "evaluations", ["turn_at"], postgresql_where=is_open)
    op.create_table(
        "evaluated_rows",
        sa.Column("evaluation_id", sa.Text(), sa.ForeignKey("evaluations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("data", json, nullable=False),
    )
