"""Ratings of answers, of which datasets are made."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_ratings"
down_revision = "20261130_failed_device"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ratings",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("messages", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("tools", sa.JSON(none_as_null=True)),
        sa.Column("chat_template_kwargs", sa.JSON(none_as_null=True)),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("label", sa.Boolean()),
        sa.Column("rejected", sa.JSON(none_as_null=True)),
        sa.Column("rejected_model", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint("(label IS NULL) <> (rejected IS NULL)", name=op.f("ck_ratings_verdict")),
        sa.CheckConstraint("(rejected IS NULL) = (rejected_model IS NULL)", name=op.f("ck_ratings_rejected_model")),
    )
    op.create_index("ix_ratings_job_newest", "ratings", ["job_id", sa.text("created_at DESC"), sa.text("id DESC")])
