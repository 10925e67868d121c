"""A worker's incarnation becomes its instance_id, and a job's asked its openai_request."""

from alembic import op

revision = "20261130_store_names"
down_revision = "20261130_plain_tar"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("workers", "incarnation", new_column_name="instance_id")
    op.alter_column("jobs", "asked", new_column_name="openai_request")
