"""Jobs, and what is told of them."""

import sqlalchemy as sa
from alembic import op

revision = "20261124_jobs"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text()),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("wish", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("total_steps", sa.Integer()),
        sa.Column("failure", sa.JSON()),
        sa.Column("log_tail", sa.Text()),
        sa.Column("event_count", sa.Integer(), nullable=False),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name=op.f("ck_jobs_failure")),
        sa.CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_jobs_lease")),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished"),
        ),
        sa.CheckConstraint(
            "status IN ('cancelled', 'failed', 'paused', 'queued', 'running', 'succeeded')", name=op.f("ck_jobs_status")
        ),
        sa.CheckConstraint("wish IN ('cancel')", name=op.f("ck_jobs_wish")),
    )
    op.create_index("ix_jobs_newest", "jobs", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_jobs_queued", "jobs", ["created_at"], postgresql_where=sa.text("status = 'queued'"))
    op.create_index("ix_jobs_leases", "jobs", ["lease_expires_at"], postgresql_where=sa.text("status = 'running'"))
    op.create_table(
        "events",
        _job_id(),
        sa.Column("seq", sa.Integer(), primary_key=True),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )
    op.create_table(
        "metrics",
        _job_id(),
        sa.Column("step", sa.Integer(), primary_key=True),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=False),
        sa.Column("learning_rate", sa.Double(), nullable=False),
        sa.Column("grad_norm", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("supervised_tokens", sa.Integer(), nullable=False),
        sa.Column("tokens_per_second", sa.Double(), nullable=False),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("eta_seconds", sa.Double(), nullable=False),
    )
    op.create_table(
        "artifacts",
        _job_id(),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer()),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    )


def _job_id() -> sa.Column[str]:
    return sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


def downgrade() -> None:
    for table in ("artifacts", "metrics", "events", "jobs"):
        op.drop_table(table)
