"""Uploads of artifacts to a model hub."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_pushes"
down_revision = "20261130_evaluations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pushes",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("repo", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text()),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.func.now()),
        sa.Column("url", sa.Text()),
        sa.Column("commit_url", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')", name=op.f("ck_pushes_status")),
        sa.CheckConstraint("(status IN ('queued', 'running')) = (due_at IS NOT NULL)", name=op.f("ck_pushes_due")),
        sa.CheckConstraint("(status = 'succeeded') = (commit_url IS NOT NULL)", name=op.f("ck_pushes_commit")),
        sa.CheckConstraint("(status = 'failed') <= (error IS NOT NULL)", name=op.f("ck_pushes_error")),
    )
    op.create_index("ix_pushes_job", "pushes", ["job_id"])
    op.create_index("ix_pushes_due", "pushes", ["due_at"], postgresql_where=sa.text("due_at IS NOT NULL"))
